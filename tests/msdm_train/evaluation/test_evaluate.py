from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from msdm_engine.errors import InputError, NumericsError, RequestError
from msdm_train.cli import main
from msdm_train.data.reader import Field
from msdm_train.evaluation.context import Context, Embed, Segment
from msdm_train.evaluation.evaluate import evaluate
from msdm_train.evaluation.networks import NoEvaluator
from msdm_train.evaluation.sections import SECTIONS, Section, sections_named
from msdm_train.evaluation.settings import EvaluationSettings

SIDE_PX = 32


@pytest.fixture
def pack(draw_field: Callable[..., Field], make_pack: Callable[..., Path]) -> Path:
    """Two fields of four windows in val, of two descriptions; one each in train and test."""
    texts = {"v1": "violet nuclei", "v2": "pink nuclei"}
    fields = [draw_field(name, "val", description=text, seed=i) for i, (name, text) in enumerate(texts.items())]
    return make_pack(draw_field("t", "train", seed=8), *fields, draw_field("e", "test", seed=9))


@pytest.fixture
def settings(bundle_folder: Path, pack: Path, tmp_path: Path, painter: Any) -> EvaluationSettings:
    return EvaluationSettings(bundle_folder, pack, "val", tmp_path / "report", side_px=SIDE_PX, quick=True)


def counting(result: dict[str, Any]) -> tuple[Section, list[Context]]:
    """A section that returns the same and keeps the contexts it was given."""
    seen: list[Context] = []

    def run(context: Context) -> dict[str, Any]:
        seen.append(context)
        return result

    return Section("Counting", 1, run), seen


def test_sections_get_the_pictures_of_the_protocol(
    settings: EvaluationSettings, embed: Embed, evaluator: Segment
) -> None:
    section, seen = counting({})
    evaluate(replace(settings, seeds=2), embed, evaluator, sections={"one": section})
    (context,) = seen
    # A field of 64 px has four disjoint windows of 32 px.
    assert [c.field for c in context.real] == ["v1"] * 4 + ["v2"] * 4
    assert {c.field for c in context.train} == {"t"}
    assert [(s.crop, s.seed, s.field) for s in context.generated] == [
        (i, seed, crop.field) for seed in (0, 1) for i, crop in enumerate(context.real)
    ]
    for sample, crop in zip(context.generated, context.real, strict=False):
        np.testing.assert_array_equal(sample.instances, crop.instances)
    assert [s.field for s in context.generated_train] == ["t"] * 4


def test_a_second_run_measures_and_generates_nothing(
    settings: EvaluationSettings, embed: Embed, evaluator: Segment, painter: Any
) -> None:
    section, seen = counting({"rows": [], "nan": float("nan")})
    first = evaluate(settings, embed, evaluator, sections={"one": section})
    assert first["sections"]["one"]["result"] == {"rows": [], "nan": None}
    runs = painter.runs
    second = evaluate(settings, embed, evaluator, sections={"one": section})
    assert (len(seen), painter.runs) == (1, runs)
    assert second["sections"] == first["sections"]
    assert json.loads((settings.out / "report.json").read_text())["sections"] == first["sections"]
    # Another protocol, encoder or setting is measured again; the pictures stay.
    evaluate(settings, embed, evaluator, sections={"one": replace(section, protocol=2)})
    embed.identity = {"name": "another"}
    evaluate(settings, embed, evaluator, sections={"one": section})
    assert (len(seen), painter.runs) == (3, runs)
    evaluate(replace(settings, seed=5), embed, evaluator, sections={"one": section})
    assert len(seen) == 4
    assert painter.runs > runs


def test_an_interrupted_run_goes_on_where_it_was(
    settings: EvaluationSettings, embed: Embed, evaluator: Segment, painter: Any
) -> None:
    done, seen = counting({})

    def breaks(context: Context) -> dict[str, Any]:
        raise NumericsError("broken")

    with pytest.raises(NumericsError):
        evaluate(settings, embed, evaluator, sections={"one": done, "two": Section("Two", 1, breaks)})
    assert not (settings.out / "report.json").exists()
    runs = painter.runs
    report = evaluate(settings, embed, evaluator, sections={"one": done, "two": counting({"a": 1})[0]})
    assert (len(seen), painter.runs) == (1, runs)
    assert report["sections"]["two"]["result"] == {"a": 1}


def test_what_cannot_be_measured_is_refused_with_its_reason(settings: EvaluationSettings, embed: Embed) -> None:
    def asks(context: Context) -> dict[str, Any]:
        context.evaluator([context.real[0].image])
        return {}

    sections = {"fidelity": Section("Fidelity", 1, asks), "after": counting({"a": 1})[0]}
    report = evaluate(settings, embed, NoEvaluator(), sections=sections)
    assert report["sections"]["fidelity"]["status"] == "refused"
    assert "hint: train one with `msdm-train segment`" in report["sections"]["fidelity"]["reason"]
    assert report["sections"]["after"]["status"] == "done"
    page = (settings.out / "report.html").read_text()
    assert "no evaluator was given" in page


def test_control_end_to_end(settings: EvaluationSettings, embed: Embed, evaluator: Segment) -> None:
    report = evaluate(settings, embed, evaluator, sections={"control": SECTIONS["control"]})
    result = report["sections"]["control"]["result"]
    rows = {row["name"]: row for row in result["rows"]}
    # The painter paints the mean colour asked for, rounded to 8 bits: half a unit of 255 is below 0.5 Delta E for
    # these colours, which no one sees.
    for region in ("foreground", "background"):
        asked = rows[f"colour asked and came, {region}"]
        assert asked["value"] < 0.5
        assert asked["ceiling"] > 5
        assert asked["weak"] == ""
    # It draws the masks as they are, so that a threshold finds all nuclei; those of real noise are found as well.
    assert rows["nuclei asked and found, count"]["value"] == 0
    # It paints colour as asked whatever the text, and one violet for every text: exchanging texts changes nothing.
    looks = rows["text exchanged, all else fixed: looks"]
    assert looks["value"] == 0
    assert looks["weak"] == "its interval reaches the bad end"
    assert looks["n_fields"] == 2


def test_every_section_is_measured_or_refused_and_the_page_holds_no_real_tile(
    settings: EvaluationSettings, embed: Embed, evaluator: Segment
) -> None:
    report = evaluate(settings, embed, evaluator)
    found = {name: section["status"] for name, section in report["sections"].items()}
    assert list(found) == ["fidelity", "closeness", "memorisation", "control", "usefulness"]
    assert found.pop("usefulness") == "refused"  # no experiment was named
    assert set(found.values()) == {"done"}
    local = settings.out / "local"
    assert (local / ".gitignore").read_text() == "*\n"
    real = cv2.imread(str(local / "real_and_generated.png"))
    assert real is not None
    page = (settings.out / "report.html").read_text()
    embedded = re.findall(r"data:[^;\"]+;base64,([^\"]+)", page)
    plots = sum(
        len(section["result"].get("plots", ())) for section in report["sections"].values() if "result" in section
    )
    assert len(embedded) == plots + 1  # and the contact sheet
    assert all(f'<section id="{name}">' in page for name in report["sections"])
    tiles = [real[y : y + SIDE_PX, x : x + SIDE_PX] for y in (0,) for x in (0, 36, 72)]
    for text in embedded:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape != real.shape
        for tile in tiles:  # a real tile found anywhere would leave a difference of zero
            if min(picture.shape[:2]) >= SIDE_PX:
                assert cv2.matchTemplate(picture, tile, cv2.TM_SQDIFF).min() > 0
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)  # nothing is loaded from elsewhere


def test_a_plot_outside_plots_is_not_embedded(settings: EvaluationSettings, embed: Embed, evaluator: Segment) -> None:
    section, _ = counting({"plots": [{"path": "local/real_and_generated.png", "caption": ""}]})
    with pytest.raises(InputError, match="only plots are shown: real tiles stay in local"):
        evaluate(settings, embed, evaluator, sections={"one": section})


def test_one_window_and_windows_without_nuclei(
    settings: EvaluationSettings, embed: Embed, evaluator: Segment,
    draw_field: Callable[..., Field], make_pack: Callable[..., Path],
) -> None:  # fmt: skip
    train = draw_field("t", "train")
    empty = draw_field("v", "val", 32)
    empty = replace(empty, instances=np.zeros_like(empty.instances))
    small = draw_field("s", "val", 20)
    data = make_pack(train, empty, small, name="one")
    report = evaluate(replace(settings, data=data), embed, evaluator, sections={"control": SECTIONS["control"]})
    assert report["protocol"]["fields_too_small"] == ["s"]
    assert report["protocol"]["real_windows"] == 1
    result = report["sections"]["control"]["result"]
    refused = {part["name"]: part["reason"] for part in result["refused"]}
    assert refused["colour asked and came, foreground"] == "it is defined on none of the pictures"
    assert refused["nuclei found in pictures of given masks"] == "no window has a nucleus"
    assert "all windows have the same text" in refused["text exchanged"]
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["colour asked and came, background"]["reason"].startswith("one field only")


def test_illegal_evaluations(
    settings: EvaluationSettings, embed: Embed, evaluator: Segment,
    draw_field: Callable[..., Field], make_pack: Callable[..., Path],
) -> None:  # fmt: skip
    with pytest.raises(InputError, match="split 'val' of drawn has no window of 96 px"):
        evaluate(replace(settings, side_px=96), embed, evaluator)
    manifest = settings.bundle / "manifest.json"
    raw = json.loads(manifest.read_text())
    raw["data"] |= {"name": "drawn", "trained_on_fields": ["t", "v2"]}
    manifest.write_text(json.dumps(raw))
    with pytest.raises(InputError, match="trained on field\\(s\\) v2 of the split 'val'"):
        evaluate(settings, embed, evaluator)
    for change in ({"split": "train"}, {"side_px": 8}, {"seeds": 0}):
        with pytest.raises(RequestError):
            replace(settings, **change)


def test_the_command(settings: EvaluationSettings, embed: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msdm_train.evaluation.encoder.open_encoder", lambda name: embed)
    monkeypatch.setattr("msdm_train.evaluation.evaluate.SECTIONS", {"one": counting({"rows": []})[0]})
    command = ["evaluate", "--bundle", str(settings.bundle), "--data", str(settings.data), "--out", str(settings.out)]
    command += ["--size", "32", "--quick", "--summary"]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert "8 windows of 2 fields, 8 pairs of 32 px" in done.output
    assert (settings.out / "report.html").is_file()
    refused = CliRunner().invoke(main, [*command, "--split", "test"])
    assert refused.exit_code == RequestError.exit_code
    assert "--test-log docs/test-runs.md" in refused.output


def test_sections_are_chosen_by_name_in_the_order_of_the_protocol() -> None:
    assert list(sections_named(("closeness", "fidelity"), SECTIONS)) == ["fidelity", "closeness"]
    assert sections_named((), SECTIONS) == SECTIONS
    with pytest.raises(RequestError, match="unknown section 'close'") as caught:
        sections_named(("close",), SECTIONS)
    assert "closeness" in str(caught.value.note)

"""Budgets, the evaluation as a command, the greedy front and the search on it."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from msdm_calibration.quantize.budget import Budget, Evaluation, Scores, scores_of
from msdm_calibration.quantize.calibrate import calibrate
from msdm_calibration.quantize.front_plot import plot, write_report
from msdm_calibration.quantize.kept_errors import KeptErrors
from msdm_calibration.quantize.sensitivity import Block, Candidate, front, largest_within, sensitivity
from msdm_calibration.quantize.settings import QuantizeSettings
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER
from msdm_engine.errors import InputError, OutputError, RequestError

PLAIN = Scores(dice=0.90, wasserstein=10.0)


def test_a_budget_is_read_and_bounds_what_it_names() -> None:
    both = Budget.parse("dice 0.5, wasserstein 3%")
    assert both == Budget(0.5, 3.0)
    assert both.allows(Scores(0.8951, 10.29), PLAIN)
    assert not both.allows(Scores(0.8949, 10.0), PLAIN)
    assert not both.allows(Scores(0.90, 10.31), PLAIN)
    assert Budget.parse("dice 1").allows(Scores(0.895, 99.0), PLAIN)


@pytest.mark.parametrize("text", ["", "dice", "dice 1%", "wasserstein 3", "dice 1, dice 2", "aji 1"])
def test_another_form_of_budget_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="budget"):
        Budget.parse(text)


def report(dice: float, distance: float) -> dict[str, object]:
    fidelity = {"scores": {"generated": {"pooled": {"dice": dice}}}}
    closeness = {"other measures": [{"measure": "2-Wasserstein, exact", "value": distance}]}
    return {"sections": {"fidelity": {"result": fidelity}, "closeness": {"result": closeness}}}


def test_scores_come_from_the_report_and_a_lack_is_named() -> None:
    assert scores_of(report(0.9, 10.0)) == PLAIN
    with pytest.raises(InputError, match="lacks a score") as caught:
        scores_of({"sections": {"fidelity": {"status": "refused", "reason": "no evaluator was given"}}})
    assert "no evaluator was given" in str(caught.value.note)


def command(path: Path, text: str) -> tuple[str, ...]:
    path.write_text(f"#!{sys.executable}\nimport sys, json, pathlib\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return (str(path),)


def test_the_evaluation_is_a_command_whose_report_is_read(bundle: Bundle, tmp_path: Path) -> None:
    text = (
        "out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1]); out.mkdir(parents=True)\n"
        f"(out / 'report.json').write_text(json.dumps({report(0.9, 10.0)!r}))\n"
        "(out / 'arguments').write_text(' '.join(sys.argv[1:]))"
    )
    judge = Evaluation(Path("pack"), Path("seen"), tmp_path / "out", program=command(tmp_path / "ok", text))
    assert judge(bundle.folder, "int8") == PLAIN
    # A folder for each bundle: what one candidate generated is not another one's.
    given = (tmp_path / "out" / f"int8-{bundle.sha256[:16]}" / "arguments").read_text()
    assert given.startswith(f"evaluate --bundle {bundle.folder} --data pack")
    assert "--precision int8 --quick" in given


def test_a_failed_evaluation_shows_its_own_words(bundle: Bundle, tmp_path: Path) -> None:
    failing = command(tmp_path / "bad", "sys.exit('error: no such pack')")
    with pytest.raises(InputError, match="failed") as caught:
        Evaluation(Path("p"), Path("e"), tmp_path, program=failing)(bundle.folder, None)
    assert "no such pack" in str(caught.value.note)
    with pytest.raises(InputError, match="cannot be run"):
        Evaluation(Path("p"), Path("e"), tmp_path, program=("/no/such/program",))(bundle.folder, None)


#: Shares and errors alone; by squared error for the work the order is c, a, b.
BLOCKS = (Block("a", 0.5, 0.04, 0.0), Block("b", 0.1, 0.03, 0.0), Block("c", 0.3, 0.0, 0.0))


def test_the_front_takes_the_least_squared_error_for_its_work_first() -> None:
    found = front(BLOCKS)
    assert [candidate.blocks for candidate in found] == [(), ("c",), ("c", "a"), ("c", "a", "b")]
    assert found[-1].share == pytest.approx(0.9)
    assert found[-1].predicted == pytest.approx(0.05)  # 3-4-5


@pytest.mark.parametrize(("allowed", "judged"), [(3, 1), (2, 3), (1, 3), (0, 3)])
def test_the_search_judges_the_largest_first_and_then_halves(allowed: int, judged: int) -> None:
    asked: list[Candidate] = []

    def judge(candidate: Candidate) -> Scores:
        asked.append(candidate)
        return Scores(0.90 if len(candidate.blocks) <= allowed else 0.80, 10.0)

    found = largest_within(front(BLOCKS), Budget(dice_points=1.0), PLAIN, judge)
    assert len([c for c in found if c.within][-1].blocks) == allowed
    assert len(asked[0].blocks) == 3
    assert len(asked) <= judged


def test_a_bundle_gets_the_set_within_the_budget_and_its_precision_map(
    settings: QuantizeSettings, tmp_path: Path
) -> None:
    out = tmp_path / "chosen"
    calibrated = calibrate(settings)

    def judge(bundle: Path, precision: str | None) -> Scores:
        assert Bundle.open(bundle).in_precision(precision or "float32")
        return PLAIN

    kept = tmp_path / "errors.json"
    found = sensitivity(calibrated, Budget.parse("dice 0.5"), judge, out, rest="float32", windows=2, kept=kept)
    block = Bundle.open(out).manifest.graphs[DENOISER].variants["int8"].details["blocks"]["block.0"]
    assert block["precision"] == "int8"
    # One block: leaving it out is float32, alone it is everything.
    assert block["error_without"] == 0.0
    assert block["error_alone"] == found["front"][-1]["measured"] > 0
    write_report(tmp_path / "report.json", found)
    plot(tmp_path / "report.png", found)
    assert json.loads((tmp_path / "report.json").read_text())["chosen"]["blocks"] == ["block.0"]
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_errors_are_measured_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "state" / "errors.json"
    assert KeptErrors(path, "key").of(["b", "a"], lambda: 0.25) == 0.25

    def again() -> float:
        raise AssertionError("measured again")

    assert KeptErrors(path, "key").of(["a", "b"], again) == 0.25
    with pytest.raises(InputError, match="another calibration"):
        KeptErrors(path, "other key")
    path.write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        KeptErrors(path, "key")


def test_errors_that_cannot_be_kept_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        KeptErrors(tmp_path / "file" / "errors.json", "key").of(["a"], lambda: 0.5)


def test_an_interrupted_search_goes_on_to_the_same_report(settings: QuantizeSettings, tmp_path: Path) -> None:
    calibrated, kept, judged = calibrate(settings), tmp_path / "errors.json", []

    def interrupted(bundle: Path, precision: str | None) -> Scores:
        judged.append(precision)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return PLAIN

    arguments = (calibrated, Budget.parse("dice 0.5"))
    with pytest.raises(KeyboardInterrupt):
        sensitivity(*arguments, interrupted, tmp_path / "a", rest="float32", windows=1, kept=kept)
    before = kept.read_bytes()
    found = sensitivity(*arguments, lambda *_: PLAIN, tmp_path / "a", rest="float32", windows=1, kept=kept)
    assert kept.read_bytes() == before  # everything had been measured
    fresh = tmp_path / "fresh.json"
    assert found == sensitivity(*arguments, lambda *_: PLAIN, tmp_path / "b", rest="float32", windows=1, kept=fresh)

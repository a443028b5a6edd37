"""The whole experiment on drawn fields; and that nothing held out reaches what is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from msdm_engine.errors import InputError, RequestError
from msdm_engine.layouts import registry
from msdm_train.cli import main
from msdm_train.data.pack import Pack, write_pack
from msdm_train.evaluation.context import Context
from msdm_train.evaluation.usefulness import run as run_module
from msdm_train.evaluation.usefulness import section
from msdm_train.evaluation.usefulness.arms import ARMS
from msdm_train.evaluation.usefulness.config import Protocol
from msdm_train.evaluation.usefulness.folds import cells_of
from msdm_train.evaluation.usefulness.parts import parts_of
from msdm_train.evaluation.usefulness.report import report_lines, write_report
from msdm_train.evaluation.usefulness.run import Limits, run_experiment
from msdm_train.evaluation.usefulness.subpack import SubReader
from msdm_train.evaluation.usefulness.synthetic import prepare_cell
from msdm_train.training.checkpoint import read_info

MakeProtocol = Callable[..., Protocol]


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def finished(drawn_pack: Path, quick_protocol: MakeProtocol, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment that ran to its end: three cells of five parts."""
    out = tmp_path_factory.mktemp("usefulness") / "run"
    assert run_experiment(drawn_pack, out, quick_protocol(), Limits(), silent) == []
    return out


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((out / "parts").glob("*.json"))]


def test_no_held_out_field_is_in_anything_that_is_trained(finished: Path, drawn_pack: Path) -> None:
    cells = {cell.name: cell for cell in cells_of(Pack(drawn_pack), 3, (0.5,))}
    assert len(list((finished / "cells").iterdir())) == len(cells)
    for name, cell in cells.items():
        folder = finished / "cells" / name
        assert [field.id for field in Pack(folder / "fields.safetensors").info.fields] == list(cell.train)
        assert read_info(folder / "generator" / "checkpoint").data["trained_on_fields"] == list(cell.train)
    for result in results(finished):
        cell = next(c for c in cells.values() if (c.fold, c.fraction) == (result["fold"], result["fraction"]))
        scored = {score["field"] for score in result["scores"]}
        assert scored == set(cell.held_out)
        assert not scored & set(result["trained_on_fields"])
        assert not any(f'"{name}"' in json.dumps(result["source"]) for name in (*cell.held_out, "t1"))


def test_synthetic_sets_do_not_change_with_held_out_fields(
    drawn_pack: Path, quick_protocol: MakeProtocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every window of a field that the cell lacks is an error while its generator and its sets are made."""
    cell = cells_of(Pack(drawn_pack), 3, (0.5,))[0]
    opened: set[str] = set()
    window = Pack.window

    def watched(self: Pack, field_id: str, y0: int, x0: int, y1: int, x1: int) -> Any:
        opened.add(field_id)
        assert field_id in cell.train, f"{field_id} was read for the cell {cell.name}"
        return window(self, field_id, y0, x0, y1, x1)

    monkeypatch.setattr(Pack, "window", watched)
    data = prepare_cell(Pack(drawn_pack), cell, quick_protocol().generator, tmp_path, silent)
    assert opened == set(cell.train)
    for sample in (*data.sets["columnar"], *data.sets["others"]):
        assert sample.field in cell.train


def test_the_engines_own_outlines_are_not_used(
    drawn_pack: Path, quick_protocol: MakeProtocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bank that ships was fitted to all train fields; a cell may not draw from it."""

    def refuse() -> None:
        raise AssertionError("the shipped outline bank was opened")

    monkeypatch.setattr(registry, "default_bank", refuse)
    cell = cells_of(Pack(drawn_pack), 3, (0.5,))[0]
    data = prepare_cell(Pack(drawn_pack), cell, quick_protocol().generator, tmp_path, silent)
    assert [len(data.sets[name]) for name in ("columnar", "others")] == [4, 4]
    assert all(sample.group.startswith("columnar") for sample in data.sets["columnar"])
    assert not any(sample.group.startswith("columnar") for sample in data.sets["others"])


def test_all_arms_have_equal_steps_and_shares_as_stated(finished: Path) -> None:
    found = results(finished)
    assert len(found) == 3 * len(ARMS)
    assert {result["steps"] for result in found} == {2}
    shares = {r["arm"]: [part["share"] for part in r["source"].get("mixture", [])] for r in found}
    assert shares == {
        "real": [],
        "classical": [],
        "columnar": [0.75, 0.25],
        "others": [0.75, 0.25],
        "synthetic": [0.5, 0.5],
    }
    configs = {
        path.name.split("-")[2]: json.loads((path / "checkpoint" / "segmenter.json").read_text())["config"]
        for path in (finished / "segmenters").iterdir()
    }
    assert {name: config.pop("augmentation") for name, config in configs.items()} == {
        arm.name: "none" if arm.name == "real" else "classical" for arm in ARMS
    }
    assert len({json.dumps(config) for config in configs.values()}) == 1


def test_finished_parts_are_not_run_again(
    finished: Path, drawn_pack: Path, quick_protocol: MakeProtocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    lost = out / "parts" / "f1-050-columnar-s0.json"
    before = json.loads(lost.read_text())
    lost.unlink()
    ran: list[str] = []
    run_part = run_module.run_part

    def noted(pack: Pack, part: Any, *rest: Any) -> dict[str, Any]:
        ran.append(part.name)
        return run_part(pack, part, *rest)

    monkeypatch.setattr(run_module, "run_part", noted)
    assert run_experiment(drawn_pack, out, quick_protocol(), Limits(), silent) == []
    assert ran == ["f1-050-columnar-s0"]
    after = json.loads(lost.read_text())
    assert before["scores"] == after["scores"]
    assert before["segmenter_sha256"] == after["segmenter_sha256"]


def test_an_interrupted_cell_goes_on_with_equal_pairs(
    finished: Path, drawn_pack: Path, quick_protocol: MakeProtocol, tmp_path: Path
) -> None:
    cell = cells_of(Pack(drawn_pack), 3, (0.5,))[0]
    folder = finished / "cells" / cell.name
    again = tmp_path / "cell"
    shutil.copytree(folder, again)
    (again / "others.npz").unlink()
    whole, resumed = (
        prepare_cell(Pack(drawn_pack), cell, quick_protocol().generator, out, silent) for out in (folder, again)
    )
    for name, samples in whole.sets.items():
        for a, b in zip(samples, resumed.sets[name], strict=True):
            assert (a.image == b.image).all() and (a.instances == b.instances).all() and a.crop == b.crop


def test_a_call_is_bounded_and_more_seeds_may_follow(
    finished: Path, drawn_pack: Path, quick_protocol: MakeProtocol, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    missing = run_experiment(drawn_pack, out, quick_protocol(seeds=2), Limits(parts=1), silent)
    assert len(missing) == 3 * len(ARMS) - 1 and {part.seed for part in missing} == {1}
    report = write_report(out)
    assert not report["complete"]
    assert report["parts"]["missing"] == [part.name for part in missing]
    assert "16 of 30 parts; effects are of these alone" in report_lines(report)[0]


def test_minutes_bound_a_call(drawn_pack: Path, quick_protocol: MakeProtocol, tmp_path: Path) -> None:
    missing = run_experiment(drawn_pack, tmp_path / "run", quick_protocol(), Limits(minutes=1e-9), silent)
    assert len(missing) == 3 * len(ARMS)


def test_other_settings_are_refused(finished: Path, drawn_pack: Path, quick_protocol: MakeProtocol) -> None:
    with pytest.raises(RequestError, match="other settings: segmenter"):
        run_experiment(drawn_pack, finished, quick_protocol(segmenter_steps=3), Limits(), silent)


def test_other_data_is_refused(finished: Path, drawn_pack: Path, quick_protocol: MakeProtocol, tmp_path: Path) -> None:
    """Equal names of fields are not equal fields."""
    pack = Pack(drawn_pack)
    other = tmp_path / "other.safetensors"
    reader = SubReader(pack, [field.id for split in ("train", "val") for field in pack.split(split)])
    write_pack(reader, other)
    with pytest.raises(RequestError, match="other settings: data"):
        run_experiment(other, finished, quick_protocol(), Limits(), silent)


def test_limits_are_positive() -> None:
    with pytest.raises(RequestError, match="parts is 0"):
        Limits(parts=0)
    with pytest.raises(RequestError, match="limit_minutes is -1"):
        Limits(minutes=-1)


def test_report_of_a_finished_run(finished: Path) -> None:
    report = write_report(finished)
    assert report["complete"] and report["parts"] == {"done": 15, "of": 15, "missing": []}
    columnar = [row for row in report["effects"] if row["nuclei"] == "columnar" and row["metric"] == "pq"]
    assert [(row["arm"], row["base"]) for row in columnar] == [(arm.name, base) for arm in ARMS for base in arm.bases]
    assert all(row["n_fields"] == 3 and row["exploratory"] for row in columnar)
    assert json.loads((finished / "report.json").read_text()) == report
    assert (finished / "plots" / "usefulness-effects.png").read_bytes().startswith(b"\x89PNG")


def test_command_reports_without_training(finished: Path, drawn_pack: Path) -> None:
    result = CliRunner().invoke(main, ["usefulness", str(drawn_pack), "--out", str(finished), "--report"])
    assert result.exit_code == 0, result.output
    assert "15 of 15 parts" in result.output and "columnar - classical: PQ" in result.output


def test_report_without_an_experiment_says_how_to_run_one(tmp_path: Path, drawn_pack: Path) -> None:
    result = CliRunner().invoke(main, ["usefulness", str(drawn_pack), "--out", str(tmp_path), "--report"])
    assert result.exit_code == InputError.exit_code
    assert "holds no usefulness experiment" in result.output


def test_first_results_cover_every_cell(drawn_pack: Path) -> None:
    cells = cells_of(Pack(drawn_pack), 3, (0.5, 1.0))
    parts = parts_of(cells, 2)
    assert {part.cell.name for part in parts[: len(parts) // 2]} == {cell.name for cell in cells}
    assert len({part.name for part in parts}) == 6 * len(ARMS) * 2


def test_section_of_the_evaluation_takes_over_the_report(finished: Path, tmp_path: Path) -> None:
    found = section.run(cast(Context, SimpleNamespace(usefulness=finished, out=tmp_path)))
    assert found["complete"] and found["effects"] and "fields" not in found
    assert found["plots"] == ["plots/usefulness-effects.png"]
    assert (tmp_path / "plots" / "usefulness-effects.png").is_file()


def test_section_without_a_run_names_the_command(
    drawn_pack: Path, quick_protocol: MakeProtocol, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="msdm-train usefulness PACK --out RUN"):
        section.run(cast(Context, SimpleNamespace(usefulness=None, out=tmp_path)))
    run_experiment(drawn_pack, tmp_path / "begun", quick_protocol(), Limits(minutes=1e-9), silent)
    with pytest.raises(InputError, match="no part of the experiment"):
        section.run(cast(Context, SimpleNamespace(usefulness=tmp_path / "begun", out=tmp_path)))

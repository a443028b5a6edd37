from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from msdm_engine.bundle.manifest import Manifest
from msdm_engine.bundle.reader import Bundle
from msdm_engine.errors import BundleError, InputError, RequestError
from msdm_engine.sampling.guidance import Guidance
from msdm_train.cli import main
from msdm_train.data.reader import Field
from msdm_train.evaluation.context import Embed, Segment
from msdm_train.evaluation.tuning.candidate import Candidate, Coordinate
from msdm_train.evaluation.tuning.store import read_tuning, store_tuning
from msdm_train.evaluation.tuning.tune import TuneSettings, tune

#: Cheaper, and as good; and what over-saturates the colours asked for, against what does not.
PLANTED = (
    Coordinate("steps", lambda c: [replace(c, sampling=replace(c.sampling, steps=n)) for n in (2, 4)]),
    Coordinate("guidance overall", lambda c: [replace(c, guidance=replace(c.guidance, overall=w)) for w in (0.0, 2.0)]),
)


@pytest.fixture
def settings(
    bundle_folder: Path, make_pack: Callable[..., Path], draw_field: Callable[..., Field], tmp_path: Path, painter: Any
) -> TuneSettings:
    data = make_pack(draw_field("t", "train"), draw_field("v", "val", seed=1), draw_field("e", "test", seed=2))
    return TuneSettings(bundle_folder, data, tmp_path / "tuning", side_px=32, quick=True)


def change_manifest(folder: Path, **changes: Any) -> None:
    manifest = Bundle.open(folder).manifest
    (folder / "manifest.json").write_text(replace(manifest, **changes).to_json())


def test_the_better_of_planted_settings_is_chosen_and_stored(
    settings: TuneSettings, embed: Embed, evaluator: Segment
) -> None:
    change_manifest(settings.bundle, guidance=Guidance(overall=2.0))
    tuning = tune(settings, embed, evaluator, coordinates=PLANTED)
    assert json.loads((settings.out / "tuning.json").read_text()) == tuning
    assert (settings.out / tuning["plot"]).is_file()
    chosen = tuning["chosen"]
    # The painter's result does not depend on the steps; without guidance it paints just what is asked.
    assert (chosen["sampling"]["steps"], chosen["guidance"]["overall"], chosen["cost"]) == (2, 0.0, 2)
    assert chosen["distance"] < tuning["start"]["distance"] / 2
    assert [c["cost"] for c in tuning["front"]] == [2]
    before = Bundle.open(settings.bundle)
    stored = store_tuning(settings.bundle, read_tuning(settings.out / "tuning.json"))
    assert (stored.manifest.sampling.steps, stored.manifest.guidance) == (2, Guidance())
    assert stored.manifest.sampling == replace(before.manifest.sampling, steps=2)  # solver, size and batch stay
    assert stored.manifest.files == before.manifest.files
    assert stored.manifest.training["tuning"]["chosen"] == chosen
    assert stored.sha256 != before.sha256
    assert sorted(p.name for p in settings.bundle.iterdir()) == sorted([*before.manifest.files, "manifest.json"])


def test_nothing_is_measured_twice(settings: TuneSettings, embed: Embed, painter: Any) -> None:
    first = tune(settings, embed, coordinates=PLANTED)
    runs = painter.runs
    assert tune(settings, embed, coordinates=PLANTED) == first
    assert painter.runs == runs
    assert first["start"]["fidelity"] is None
    # What is stored does not change what was measured: the graphs are the same.
    store_tuning(settings.bundle, first)
    tune(settings, embed, coordinates=PLANTED)
    assert painter.runs == runs
    tune(replace(settings, seed=1), embed, coordinates=PLANTED)
    assert painter.runs > runs


def test_a_tuning_is_stored_in_its_own_bundle_only(settings: TuneSettings, embed: Embed, tmp_path: Path) -> None:
    tuning = tune(settings, embed, coordinates=PLANTED)
    tuning["protocol"]["files_sha256"] = "0" * 64
    with pytest.raises(BundleError, match="is not the one that was tuned"):
        store_tuning(settings.bundle, tuning)
    (tmp_path / "half.json").write_text('{"chosen": {}}')
    for name in ("half.json", "none.json"):
        with pytest.raises(InputError, match="is no tuning"):
            read_tuning(tmp_path / name)


def test_illegal_tunings(settings: TuneSettings, embed: Embed) -> None:
    with pytest.raises(InputError, match="no window of 96 px"):
        tune(replace(settings, side_px=96), embed)
    with pytest.raises(RequestError, match="size 8 px"):
        replace(settings, side_px=8)


def test_a_setting_is_one_of_the_manifest(settings: TuneSettings) -> None:
    manifest = Bundle.open(settings.bundle).manifest
    start = Candidate(manifest.sampling, manifest.guidance)
    assert start.to_json()["guidance"]["sigma_high"] is None
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_command(settings: TuneSettings, embed: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msdm_train.evaluation.encoder.open_encoder", lambda name: embed)
    monkeypatch.setattr("msdm_train.evaluation.tuning.tune.QUICK_COORDINATES", PLANTED)
    command = ["tune", "--bundle", str(settings.bundle), "--data", str(settings.data), "--out", str(settings.out)]
    done = CliRunner().invoke(main, [*command, "--quick", "--size", "32", "--store"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "chosen: euler, 2 steps" in done.output
    assert Bundle.open(settings.bundle).manifest.sampling.steps == 2

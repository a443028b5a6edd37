"""Ranges from a report of `msdm-calibrate ranges`: the stages meet in the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from msdm_calibration.ranges.measure import REPORT, measure
from msdm_calibration.ranges.settings import RangeSettings
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER
from msdm_engine.errors import InputError
from msdm_export.cli import main
from msdm_export.precision.formats import FORMATS
from msdm_export.precision.measured import ranges_from_report
from msdm_export.precision.variants import add_precision, source_models


@pytest.fixture(scope="module")
def measured(bundle: Bundle, pack_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of the tiny bundle."""
    out = tmp_path_factory.mktemp("ranges")
    measure(RangeSettings(bundle.folder, pack_path, out, windows=2, size_px=64, steps=3, bare=1))
    return out / REPORT


@pytest.fixture
def rewritten(measured: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """A copy of the report with a change."""

    def rewrite(change: Callable[[dict[str, Any]], None]) -> Path:
        raw = json.loads(measured.read_text())
        change(raw)
        (tmp_path / REPORT).write_text(json.dumps(raw))
        return tmp_path / REPORT

    return rewrite


def entry_of(raw: dict[str, Any], rule: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    return next(entry for entry in raw["graphs"][DENOISER] if rule(entry))


def test_a_typed_bundle_follows_from_the_report(measured: Path, bundle: Bundle, tmp_path: Path) -> None:
    manifest = add_precision(bundle.folder, "fp16", out=tmp_path / "typed", ranges=measured)
    for spec in manifest.graphs.values():
        details = spec.variants["fp16"].details
        assert details["measured_on"]["conditions"] == "2 windows of drawn, 1 pairs without conditions"
    # BERT masks with the lowest float32, which half cannot hold: the report has seen it.
    mask = manifest.graphs["text_encoder"].variants["fp16"].details["float32"]
    assert any("3.40282e+38" in entry["reason"] or "3.403e+38" in entry["reason"] for entry in mask)


def test_an_overflow_in_the_report_becomes_an_exception(
    rewritten: Callable[..., Path], bundle: Bundle, tmp_path: Path
) -> None:
    node = ""

    def plant(raw: dict[str, Any]) -> None:
        nonlocal node
        entry = entry_of(raw, lambda entry: entry["op"] == "Conv")
        node = entry["node"]
        entry["levels"][1][raw["level_columns"].index("high")] = 1e5

    manifest = add_precision(bundle.folder, "fp16", out=tmp_path / "typed", ranges=rewritten(plant))
    entries = manifest.graphs[DENOISER].variants["fp16"].details["float32"]
    found = [entry for entry in entries if entry["rule"] == "range" and node in entry["nodes"]]
    assert found and "reaches 1e+05 at noise level" in found[0]["reason"]


def test_bfloat16_loses_nothing_to_underflow(rewritten: Callable[..., Path], bundle: Bundle) -> None:
    def lose(raw: dict[str, Any]) -> None:
        entry = entry_of(raw, lambda entry: entry["op"] == "Conv")
        entry["levels"][0][raw["level_columns"].index("underflow_loss")] = 0.5

    path, models = rewritten(lose), source_models(bundle)
    lost = {
        name: max(one.lost for graph in ranges_from_report(path, bundle, models, half).ranges.values()
                  for tensor, one in graph.items() if not tensor.startswith("model."))
        for name, half in FORMATS.items()
    }  # fmt: skip
    assert lost["fp16"] == 0.5 and lost["bf16"] < 2.0**-8


@pytest.mark.parametrize("text", ["nothing", "[]", '{"format": "msdm-ranges", "version": 99}'])
def test_no_report_is_refused(bundle: Bundle, tmp_path: Path, text: str) -> None:
    (tmp_path / REPORT).write_text(text)
    with pytest.raises(InputError, match="not a range report"):
        add_precision(bundle.folder, "fp16", out=tmp_path / "typed", ranges=tmp_path / REPORT)
    assert not (tmp_path / "typed").exists()


def test_a_report_of_other_graphs_is_refused(rewritten: Callable[..., Path], bundle: Bundle, tmp_path: Path) -> None:
    path = rewritten(lambda raw: raw["run"]["graphs"].update(denoiser="0" * 64))
    with pytest.raises(InputError, match="another graph 'denoiser'"):
        add_precision(bundle.folder, "fp16", out=tmp_path / "typed", ranges=path)


def test_a_report_that_lacks_a_tensor_is_refused(
    rewritten: Callable[..., Path], bundle: Bundle, tmp_path: Path
) -> None:
    def drop(raw: dict[str, Any]) -> None:
        raw["graphs"][DENOISER].remove(entry_of(raw, lambda entry: entry["op"] == "Conv"))

    with pytest.raises(InputError, match="lacks 1 tensors of the graph 'denoiser'"):
        add_precision(bundle.folder, "fp16", out=tmp_path / "typed", ranges=rewritten(drop))


def test_data_and_ranges_together_are_refused(measured: Path, bundle: Bundle, pack_path: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle.folder, tmp_path / "copy")
    words = ["precision", str(copy), "--to", "fp16", "--data", str(pack_path), "--ranges", str(measured)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2 and "both say where ranges come from" in done.output

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from msdm_calibration.cli import main
from msdm_calibration.ranges.document import RangeReport
from msdm_calibration.ranges.measure import REPORT
from msdm_calibration.ranges.page import PAGE
from msdm_calibration.ranges.store import store
from msdm_calibration.ranges.summary import summary_of
from msdm_engine.bundle.reader import Bundle
from msdm_engine.errors import BundleError


@pytest.fixture
def run(pack_path: Path, tmp_path: Path) -> Callable[..., str]:
    def call(bundle: Path, *more: str, code: int = 0) -> str:
        words = ["ranges", str(bundle), "--data", str(pack_path), "--out", str(tmp_path / "out"), "--quiet"]
        done = CliRunner().invoke(main, [*words, "--windows", "3", "--size", "32", "--bare", "1", *more])
        assert done.exit_code == code, done.output
        return done.output

    return call


def test_the_command_writes_report_page_and_plots(
    make_bundle: Callable[..., Path], run: Callable[..., str], tmp_path: Path
) -> None:
    output = run(make_bundle(weight_scale=2.0**20))
    assert "overflow: denoiser, layer unet.first, Conv conv_first" in output
    page = (tmp_path / "out" / PAGE).read_text()
    assert "unet.first" in page and "conv_first" in page
    assert page.count("data:image/png;base64,") == len(list((tmp_path / "out" / "plots").glob("*.png")))
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # nothing is loaded from elsewhere
    assert len(json.dumps(summary_of(RangeReport.read(tmp_path / "out" / REPORT)))) < 20_000


def test_the_page_is_the_same_for_the_same_numbers(
    make_bundle: Callable[..., Path], run: Callable[..., str], tmp_path: Path
) -> None:
    bundle = make_bundle()
    run(bundle)
    first = (tmp_path / "out" / PAGE).read_bytes()
    assert "is of this run" in run(bundle)
    assert (tmp_path / "out" / PAGE).read_bytes() == first


def test_the_split_test_is_refused(make_bundle: Callable[..., Path], run: Callable[..., str]) -> None:
    assert "split 'test' cannot be calibrated on" in run(make_bundle(), "--split", "test", code=2)


def test_ranges_are_stored_in_the_bundle(
    make_bundle: Callable[..., Path], run: Callable[..., str], tmp_path: Path
) -> None:
    folder = make_bundle()
    before = Bundle.open(folder)
    run(folder, "--store")
    after = Bundle.open(folder)
    calibrated = after.manifest.calibrated
    assert before.manifest.calibrated is None and calibrated is not None
    assert after.sha256 != before.sha256  # the manifest's hash covers them
    assert (calibrated.data, calibrated.windows) == ("drawn", 3)
    report = RangeReport.read(tmp_path / "out" / REPORT)
    assert calibrated.conditions == report.conditions
    assert set(calibrated.activations) == {"conditioner/pooled", "conditioner/map_features_0", "denoiser/denoised"}
    low, high = calibrated.activations["conditioner/map_features_0"]  # those of the maps, which it only hands on
    assert (low, high) == (-1, 1)
    run(folder, "--store")  # again: the same
    assert Bundle.open(folder).sha256 == after.sha256


def test_ranges_of_other_graphs_are_not_stored(
    make_bundle: Callable[..., Path], run: Callable[..., str], tmp_path: Path
) -> None:
    run(make_bundle("one"))
    with pytest.raises(BundleError, match="other graphs"):
        store(make_bundle("two", weight_scale=2.0), RangeReport.read(tmp_path / "out" / REPORT))

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_calibration import trajectory
from msdm_calibration.data import CalibrationData
from msdm_calibration.ranges import measure as module
from msdm_calibration.ranges.document import RangeReport
from msdm_calibration.ranges.measure import REPORT, measure
from msdm_calibration.ranges.settings import RangeSettings
from msdm_calibration.ranges.state import STATE
from msdm_calibration.trajectory import Visit, follow
from msdm_engine.backends import open_backend
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER
from msdm_engine.errors import InputError, OutputError, RequestError


@pytest.fixture
def settings(bundle: Bundle, pack_path: Path, tmp_path: Path) -> Callable[..., RangeSettings]:
    def make(out: str = "out", **changed: Any) -> RangeSettings:
        given: dict[str, Any] = {"windows": 5, "size_px": 32, "batch": 2, "bare": 1, **changed}
        return RangeSettings(bundle.folder, pack_path, tmp_path / out, **given)

    return make


def test_ranges_are_those_of_the_trajectories(
    bundle: Bundle, pack_path: Path, settings: Callable[..., RangeSettings]
) -> None:
    report = measure(settings(windows=3, bare=0, batch=3))
    visits: list[Visit] = []
    with CalibrationData(pack_path, 0) as data:
        requests = [window.request for window in data.windows(3, 32)]
    follow(bundle, open_backend("onnxruntime", bundle, threads=1), requests, visits.append)
    steps = [visit for visit in visits if visit.graph == DENOISER]
    entries = {entry.activation.tensor: entry for entry in report.graphs[DENOISER]}
    for tensor in ("state", "denoised_prev", "denoised", "state_next"):
        for visit, level in zip(steps, entries[tensor].levels, strict=True):
            values = (visit.inputs | visit.outputs)[tensor].astype(np.float64)
            # Six digits are kept; marked graphs and plain ones differ in float32's last digits.
            assert level.sigma == pytest.approx(visit.sigma, rel=1e-5)
            assert level.low == pytest.approx(values.min(), rel=1e-5)
            assert level.high == pytest.approx(values.max(), rel=1e-5)
            assert level.mean == pytest.approx(values.mean(), rel=1e-4, abs=1e-5)
            assert level.std == pytest.approx(values.std(), rel=1e-4)
            assert level.count == values.size
            assert level.percentiles[2] == pytest.approx(np.median(np.abs(values)), rel=0.125, abs=1e-3)  # a bin
    assert [len(entry.channels) for entry in (entries["state"], entries["hidden"])] == [6, 8]  # the convolutions read
    assert not entries["mixed"].channels
    rearranged = next(e for e in report.graphs["conditioner"] if e.activation.tensor == "map_features_0")
    assert rearranged.activation.same_values_as == "maps" and not rearranged.levels


class Stop(Exception):
    """An interruption."""


@pytest.mark.parametrize("batches_done", [1, 2])
def test_an_interrupted_measurement_goes_on_to_the_same_bytes(
    settings: Callable[..., RangeSettings], monkeypatch: pytest.MonkeyPatch, batches_done: int
) -> None:
    whole, broken = settings("whole"), settings("broken")
    measure(whole)
    calls = 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > batches_done:
            raise Stop
        return trajectory.follow(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, "follow", interrupted)
        with pytest.raises(Stop):
            measure(broken)
    assert (broken.out / STATE).exists() and not (broken.out / REPORT).exists()
    measure(broken)
    assert (broken.out / REPORT).read_bytes() == (whole.out / REPORT).read_bytes()
    assert not (broken.out / STATE).exists()


def test_a_finished_report_is_read_and_not_measured_again(
    settings: Callable[..., RangeSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(settings())

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(module, "follow", refuse)
    assert measure(settings()) == first


def test_another_run_in_the_folder_is_refused_by_name(
    settings: Callable[..., RangeSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(settings())
    with pytest.raises(OutputError, match=r"another measurement\n.*differs in conditions_sha256 .* seed 0"):
        measure(settings(seed=1))
    # The same for the state of an unfinished one.
    saved = module.save_state

    def stop(*args: Any) -> None:
        saved(*args)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_state", stop)
        with pytest.raises(Stop):
            measure(settings("other"))
    with pytest.raises(OutputError, match="batch 2"):
        measure(settings("other", batch=1))


def test_a_damaged_state_is_an_error(settings: Callable[..., RangeSettings]) -> None:
    asked = settings()
    asked.out.mkdir()
    (asked.out / STATE).write_bytes(b"PK no archive")
    with pytest.raises(InputError, match="damaged"):
        measure(asked)


@pytest.mark.parametrize("text", ["", "[]", '{"format": "msdm-ranges", "version": 0}', '{"format": "msdm-ranges"'])
def test_a_report_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / REPORT).write_text(text)
    with pytest.raises(InputError, match="not a range report"):
        RangeReport.read(tmp_path / REPORT)


@pytest.mark.parametrize(("name", "value"), [("batch", 0), ("batch", 65), ("bare", -1), ("threads", 0), ("seed", -1)])
def test_settings_out_of_range_are_refused(settings: Callable[..., RangeSettings], name: str, value: int) -> None:
    with pytest.raises(RequestError, match=f"{name} {value}"):
        settings(**{name: value})


def test_a_report_reads_back_as_it_was(settings: Callable[..., RangeSettings]) -> None:
    report = measure(settings())
    assert RangeReport.read(settings().out / REPORT).to_json() == report.to_json()
    assert report.conditions["height in px"] == (32, 32)
    assert report.conditions["morphology given"] == (0, 1)  # one pair without conditions
    assert report.conditions["nuclear area fraction"][0] > 0

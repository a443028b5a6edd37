from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msdm_calibration.marked import Activation
from msdm_calibration.ranges.document import ActivationRange, LevelRange, RangeReport
from msdm_calibration.ranges.findings import NEAR, OVERFLOW, UNDERFLOW, findings_of, outliers_of
from msdm_calibration.ranges.float32_rules import SIGMA, STATISTICS, float32_rules
from msdm_calibration.ranges.layers import by_layer, sigmas_of
from msdm_calibration.ranges.measure import measure
from msdm_calibration.ranges.settings import RangeSettings
from msdm_engine.contract import DENOISER
from msdm_engine.engine import Engine
from msdm_engine.pairs import PairRequest

LEVEL = LevelRange(1.0, -1.0, 1.0, 0.0, 0.5, (0.0, 0.1, 0.5, 0.9, 1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0, 100)
CONV = Activation("hidden", "conv", "Conv", "unet.first", (("next", "Conv", 0),))


def report(*levels: LevelRange, channels: tuple[float, ...] = (), activation: Activation = CONV) -> RangeReport:
    return RangeReport({}, {DENOISER: (ActivationRange(activation, levels, channels),)}, {})


@pytest.mark.parametrize(
    ("high", "kind"), [(32752.0, None), (32753.0, NEAR), (65504.0, NEAR), (65505.0, OVERFLOW)]
)  # 65,504 / 2 = 32,752
def test_overflow_is_told_with_a_factor_of_two_in_hand(high: float, kind: str | None) -> None:
    found = findings_of(report(LEVEL, replace(LEVEL, sigma=2.0, high=high)))
    assert [(one.kind, one.sigma) for one in found] == ([(kind, 2.0)] if kind else [])


def test_what_is_not_finite_overflows_whatever_the_rest() -> None:
    (found,) = findings_of(report(LEVEL, replace(LEVEL, sigma=3.0, non_finite=1)))
    assert (found.kind, found.sigma) == (OVERFLOW, 3.0)


@pytest.mark.parametrize(("loss", "found"), [(2.0**-11, 0), (2.0**-10, 1)])
def test_underflow_is_told_beyond_the_unit_roundoff(loss: float, found: int) -> None:
    findings = findings_of(report(LEVEL, replace(LEVEL, sigma=0.1, underflow_loss=loss)))
    assert [(one.kind, one.sigma) for one in findings] == [(UNDERFLOW, 0.1)] * found


def test_outliers_exceed_eight_times_the_median_channel() -> None:
    (found,) = outliers_of(report(LEVEL, channels=(1.0, 1.0, 8.0, 8.1, 1.0)))
    assert (found.channels, found.of, found.ratio) == ((3,), 5, 8.1)
    assert outliers_of(report(LEVEL, channels=(0.0, 0.0, 5.0))) == []  # no typical channel to compare with


def test_layers_take_the_worst_of_their_activations() -> None:
    high = replace(LEVEL, high=65504.0 / 2**5)
    (row,) = by_layer(report(LEVEL, high), DENOISER).values()
    # log2(65,504 / 1) and 5; largest over median: 1 / 0.5 and 2,047 / 0.5.
    assert [level.headroom_bits for level in row] == [pytest.approx(np.log2(65504)), 5.0]
    assert [level.dynamic_bits for level in row] == [1.0, pytest.approx(np.log2(65504 / 2**4))]
    assert sigmas_of(report(LEVEL, high), DENOISER) == [1.0, 1.0]


def test_statistics_of_a_norm_are_told_from_the_rest() -> None:
    # x -> x^2 -> mean -> + eps -> rsqrt -> x * rsqrt, as a channel norm is exported.
    chain = (
        Activation("x", "conv", "Conv", "", (("square", "Pow", 0), ("scale", "Mul", 0))),
        Activation("squares", "square", "Pow", "", (("mean", "ReduceMean", 0),)),
        Activation("mean", "mean", "ReduceMean", "", (("add", "Add", 0),)),
        Activation("safe", "add", "Add", "", (("root", "Sqrt", 0),)),
        Activation("root", "root", "Sqrt", "", (("scale", "Mul", 1),)),
        Activation("normed", "scale", "Mul", "", ()),
    )
    assert float32_rules(chain) == dict.fromkeys(("squares", "mean", "safe", "root"), STATISTICS)


def test_what_follows_from_the_schedule_row_alone_is_told() -> None:
    chain = (
        Activation("row", "", "Input", "", (("take", "Gather", 0),)),
        Activation("sigma", "take", "Gather", "", (("log", "Log", 0), ("scale", "Mul", 1))),
        Activation("level", "log", "Log", "", ()),
        Activation("x", "", "Input", "", (("scale", "Mul", 0),)),
        Activation("scaled", "scale", "Mul", "", ()),
    )
    assert float32_rules(chain) == {"sigma": SIGMA, "level": SIGMA}


def settings(bundle: Path, pack: Path, out: Path) -> RangeSettings:
    return RangeSettings(bundle, pack, out, windows=2, size_px=32, bare=0)


def test_a_planted_overflow_is_caught_and_its_layer_named(
    make_bundle: Callable[..., Path], pack_path: Path, tmp_path: Path
) -> None:
    clean, planted = make_bundle("clean"), make_bundle("planted", weight_scale=2.0**20)
    request = PairRequest(0, 1, 32, 32)
    pictures = []
    for folder in (clean, planted):
        with Engine.open(folder, threads=1) as engine:
            pictures += [pair.image for pair in engine.sample([request])]
    assert np.array_equal(pictures[0], pictures[1])  # powers of two: float32 gives the same bits

    of_clean, of_planted = (
        [finding for finding in findings_of(measure(settings(folder, pack_path, tmp_path / name))) if not finding.rule]
        for folder, name in ((clean, "a"), (planted, "b"))
    )
    assert of_clean == []
    (found,) = of_planted
    assert (found.kind, found.graph, found.layer, found.node) == (OVERFLOW, DENOISER, "unet.first", "conv_first")
    assert "layer unet.first, Conv conv_first -> hidden reaches" in found.text()
    assert found.sigma == pytest.approx(40.0)  # the state is largest at the first step

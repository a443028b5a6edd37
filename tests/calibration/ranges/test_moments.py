from __future__ import annotations

import numpy as np
import pytest

from msdm_calibration.ranges.float16 import LARGEST, NORMAL, ROUNDOFF, SUBNORMAL, underflow_loss
from msdm_calibration.ranges.histogram import BINS, EDGES, FIRST, MagnitudeCounter, percentile, share_below
from msdm_calibration.ranges.moments import Moments, moments_of


def moments(values: np.ndarray, axis: int | None = None) -> Moments:
    return moments_of(values.astype(np.float32), axis, MagnitudeCounter())


def test_each_edge_opens_its_bin() -> None:
    for number, edge in enumerate(EDGES[:-1]):
        for value in (edge, -edge, np.nextafter(np.float32(EDGES[number + 1]), np.float32(0))):
            assert moments(np.array([value])).counts[FIRST + number] == 1


def test_zero_tiny_and_huge_have_bins_of_their_own() -> None:
    counts = moments(np.array([0.0, -0.0, 2.0**-33, 2.0**32, 3.4e38])).counts
    assert (counts[0], counts[1], counts[BINS - 1]) == (2, 1, 2)


def test_histograms_of_parts_add_up() -> None:
    values = np.random.default_rng(0).standard_normal(10_000) ** 5
    parts = moments(values[:3333]).counts + moments(values[3333:]).counts
    assert np.array_equal(parts, moments(values).counts)


def test_extrema_and_sums_are_those_of_numpy() -> None:
    values = np.random.default_rng(1).standard_normal((3, 5, 64, 64)).astype(np.float32)
    found = moments(values)
    assert (found.low, found.high) == (values.min(), values.max())
    wide = values.astype(np.float64)
    # Sums over rows of 4,096 in float32: a relative error of some 1e-7 of the sum of magnitudes.
    assert found.total == pytest.approx(wide.sum(), abs=1e-6 * np.abs(wide).sum())
    assert found.squares == pytest.approx((wide**2).sum(), rel=1e-6)


@pytest.mark.parametrize(("shape", "axis"), [((2, 5, 8, 8), 1), ((2, 7, 5), -1), ((2, 5, 7), -2), ((2, 3, 5, 7), -2)])
def test_channels_have_their_largest_magnitude(shape: tuple[int, ...], axis: int) -> None:
    values = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    found = moments(values, axis)
    assert found.channels is not None
    assert np.array_equal(found.channels, np.abs(values).max(others))
    assert (found.low, found.high, int(found.counts.sum())) == (values.min(), values.max(), values.size)


def test_what_is_not_finite_is_counted_apart() -> None:
    values = np.array([[1.0, np.inf, -3.0], [np.nan, -np.inf, 2.0]], np.float32)
    found = moments(values, -1)
    assert (found.non_finite, found.low, found.high, found.total) == (3, -3.0, 2.0, 0.0)
    assert found.channels is not None and found.channels.tolist() == [1.0, 0.0, 3.0]
    nothing = moments(np.full(4, np.nan))
    assert (nothing.non_finite, int(nothing.counts.sum()), nothing.squares) == (4, 0, 0.0)


def test_squares_beyond_float32_are_summed_in_float64() -> None:
    assert moments(np.array([3e38, -3e38])).squares == pytest.approx(2 * 9e76, rel=1e-6)  # 3e38 rounded to float32
    assert moments(np.array([1e-30])).squares == pytest.approx(1e-60, rel=1e-6)


def test_percentiles_of_a_known_distribution() -> None:
    values = np.linspace(0, 1, 100_001)  # magnitude p at p %
    counts = moments(values).counts
    for percent in (1.0, 50.0, 99.0, 99.9):
        # Uniform within a bin as the interpolation has it: exact to the sampling.
        assert percentile(counts, percent, 1.0) == pytest.approx(percent / 100, abs=2e-5)
    assert percentile(counts, 100.0, 1.0) == 1.0
    assert percentile(np.zeros(BINS, np.int64), 50.0, 0.0) == 0.0


def test_shares_below_the_limits_of_float16() -> None:
    counts = moments(np.array([0.0, SUBNORMAL / 2, SUBNORMAL, NORMAL / 2, NORMAL, 1.0])).counts
    assert share_below(counts, SUBNORMAL) == 1 / 6
    assert share_below(counts, NORMAL) == 3 / 6
    with pytest.raises(ValueError, match="no edge"):
        share_below(counts, 0.3)


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-6, 1e-7, 1e-8])
def test_underflow_loss_is_what_float16_takes(scale: float) -> None:
    values = (np.random.default_rng(3).standard_normal(200_000) * scale).astype(np.float32)
    small = np.abs(values) < NORMAL
    lost = np.where(small, values - values.astype(np.float16).astype(np.float32), 0)
    expected = np.linalg.norm(lost.astype(np.float64)) / np.linalg.norm(values.astype(np.float64))
    found = moments(values)
    # The histogram knows magnitudes to an eighth of an octave, and errors in the mean: a tenth is enough to tell 2^-11
    # from what matters.
    assert underflow_loss(found.counts, found.squares) == pytest.approx(expected, rel=0.1)
    assert (expected > ROUNDOFF) == (scale < 1e-4)


def test_limits_are_those_of_numpy() -> None:
    information = np.finfo(np.float16)
    assert (float(information.max), float(information.smallest_normal)) == (LARGEST, NORMAL)
    assert float(information.smallest_subnormal) == SUBNORMAL and float(information.eps) / 2 == ROUNDOFF

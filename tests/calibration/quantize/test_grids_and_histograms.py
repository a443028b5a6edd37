"""Grids round as QuantizeLinear does; histograms add up, move by octaves and give scales that arithmetic predicts."""

from __future__ import annotations

import numpy as np
import pytest

from msdm_calibration.quantize.criteria import proposals, weight_scales
from msdm_calibration.quantize.grids import GRIDS, grid_named
from msdm_calibration.quantize.histogram import BINS, centres, counts_of, divided_by, largest_edge
from msdm_engine.errors import RequestError

#: A bin is one 256th of a power of two wide.
BIN = 2.0**-8


def test_int8_rounds_to_even_and_saturates() -> None:
    codes = GRIDS["int8"].codes(np.array([0.5, 1.5, -0.5, 200.0, -200.0]), 1.0)
    assert codes.tolist() == [0, 2, 0, 127, -128]


def test_fp8_keeps_three_bits_of_the_mantissa_and_saturates() -> None:
    grid = GRIDS["fp8"]
    assert grid.rounded(np.array([1.0, 1.0625, 1.1, 1e4, -1e4]), 1.0).tolist() == [1.0, 1.0, 1.125, 448.0, -448.0]


def test_an_unknown_precision_names_the_nearest() -> None:
    with pytest.raises(RequestError, match="int4") as caught:
        grid_named("int4")
    assert "int8" in str(caught.value.note)


def test_counts_are_of_absolute_values_and_add_up() -> None:
    values = np.array([0.0, -1.0, 1.0, 3.0, 2.0**-30], np.float32)
    counts = counts_of(values)
    assert counts.sum() == len(values)
    assert counts[0] == 2  # zero, and what is smaller than all bins
    one = int(np.flatnonzero(counts == 2)[-1])
    assert centres()[one] == pytest.approx(1.0, rel=BIN)
    assert largest_edge(counts) == pytest.approx(3.0, rel=BIN)
    assert (counts_of(values[:2]) + counts_of(values[2:]) == counts).all()


@pytest.mark.parametrize("octaves", [-3, 0, 5])
def test_a_divided_histogram_is_the_histogram_of_divided_values(octaves: int) -> None:
    values = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    values[:7] = 0
    moved = counts_of(values / np.float32(2.0**octaves))
    assert (divided_by(counts_of(values), octaves) == moved).all()


def test_nothing_is_clipped_of_values_that_are_spread_evenly() -> None:
    mass = counts_of(np.linspace(-1, 1, 100_001, dtype=np.float32)).astype(float)
    # A step of d makes an error of d^2 / 12 and clipping a share e one of e^3 / 3: least near e = (d^2 / 6)^(1 / 2).
    assert proposals(mass, GRIDS["int8"])["mse"] * 127 == pytest.approx(1.0, abs=0.06)


def test_one_outlier_is_clipped_by_error_and_percentile_but_not_by_the_largest() -> None:
    values = np.concatenate([np.random.default_rng(0).uniform(-1, 1, 10**6), [100.0]]).astype(np.float32)
    found = proposals(counts_of(values).astype(float), GRIDS["int8"])
    assert found["max"] * 127 == pytest.approx(100, rel=BIN)
    assert found["percentile 99.999"] * 127 == pytest.approx(1.0, rel=2 * BIN)
    assert found["mse"] < found["max"] / 4
    assert set(proposals(counts_of(values).astype(float), GRIDS["fp8"])) == set(found) - {"entropy"}


def test_a_tensor_of_zeros_has_no_proposals() -> None:
    assert proposals(np.eye(1, BINS)[0], GRIDS["int8"]) == {}


def test_each_output_channel_has_a_scale_of_its_own() -> None:
    weight = np.random.default_rng(0).uniform(-1, 1, (2, 400)).astype(np.float32)
    weight[1] *= 1000
    scales = weight_scales(weight, 0, GRIDS["int8"])
    assert scales[1] / scales[0] == pytest.approx(1000, rel=0.1)
    assert weight_scales(weight.T, 1, GRIDS["int8"]) == pytest.approx(scales)

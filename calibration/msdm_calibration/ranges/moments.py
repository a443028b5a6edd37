"""Extrema, sums and histogram of one array, in one walk over blocks that fit a core's cache."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from msdm_calibration.ranges.histogram import BINS, MAX_VALUES, MagnitudeCounter

#: Values of a block: 256 KiB, which stay in the cache for all passes. The array itself is read from memory once.
BLOCK = 2**16
#: Values of a row where channels do not decide it: summed in float32, then the rows' sums in float64.
ROW = 2**12
LEAST_ROW = 64
#: Magnitudes whose squares float32 holds with all digits.
SAFE = (1e-15, 1e15)


@dataclass(frozen=True)
class Moments:
    """What one array holds.

    Args:
        counts: [BINS] int64 histogram of the finite values' magnitudes.
        non_finite: values in no other number here.
        low, high: extrema; infinite without a finite value.
        total, squares: sums of values and of squares.
        channels: [C] largest magnitude of each channel, where an axis was given.
    """

    counts: np.ndarray
    non_finite: int
    low: float
    high: float
    total: float
    squares: float
    channels: np.ndarray | None


def moments_of(values: np.ndarray, axis: int | None, counter: MagnitudeCounter) -> Moments:
    """Measures an array.

    Args:
        values: float32, any shape.
        axis: of the channels.
        counter: to count with; empty before and after.
    """
    rows, channels = _rows(values, axis)
    lows, highs, totals, squares = (np.empty(len(rows)) for _ in range(4))
    counts, bad = np.zeros(BINS, np.int64), 0
    pending = 0
    step = max(1, BLOCK // rows.shape[1])
    for first in range(0, len(rows), step):
        block = rows[first : first + step]
        at = slice(first, first + len(block))
        lows[at], highs[at] = block.min(1), block.max(1)
        with np.errstate(over="ignore", invalid="ignore"):  # below, in float64
            totals[at], squares[at] = block.sum(1), np.einsum("ij,ij->i", block, block)
        counter.add(block)
        pending += block.size
        if pending + step * rows.shape[1] > MAX_VALUES or at.stop == len(rows):
            more, wrong = counter.take()
            counts, bad, pending = counts + more, bad + wrong, 0
    if bad:
        return _finite_part(values, axis, counter, bad)
    largest = np.maximum(highs, -lows)
    most = float(largest.max())
    if not SAFE[0] < most < SAFE[1]:  # squares leave float32's range
        wide = rows.astype(np.float64)
        totals, squares = wide.sum(1), np.einsum("ij,ij->i", wide, wide)
    shaped = None if channels is None else largest.reshape(-1, channels).max(0).astype(np.float32)
    return Moments(counts, 0, float(lows.min()), float(highs.max()), float(totals.sum()), float(squares.sum()), shaped)


def _finite_part(values: np.ndarray, axis: int | None, counter: MagnitudeCounter, bad: int) -> Moments:
    """Without what is infinite or NaN; channels keep their places, with zeros there."""
    finite = np.isfinite(values)
    channels = moments_of(np.where(finite, values, np.float32(0)), axis, counter).channels
    if not finite.any():
        return Moments(np.zeros(BINS, np.int64), bad, np.inf, -np.inf, 0.0, 0.0, channels)
    found = moments_of(values[finite], None, counter)
    return Moments(found.counts, bad, found.low, found.high, found.total, found.squares, channels)


def _rows(values: np.ndarray, axis: int | None) -> tuple[np.ndarray, int | None]:
    """The array as rows [R, K], each of one channel, and the number of channels C; row r is of channel r % C."""
    if axis is None:
        row = math.gcd(values.size, ROW)
        # An odd number of values is a short tensor: one row.
        return np.ascontiguousarray(values).reshape(-1, row if row >= LEAST_ROW else values.size), None
    if axis == -1:
        return np.ascontiguousarray(values.reshape(-1, values.shape[-1]).T), values.shape[-1]
    channels = values.shape[axis]
    before = math.prod(values.shape[: axis % values.ndim])
    return np.ascontiguousarray(values).reshape(before * channels, -1), channels

"""Histograms of magnitudes with fixed bins, so that any two can be added.

Eight bins an octave from 2^-32 to 2^32, one for zero, one below and one above. A float32's sign, exponent and first
three bits of mantissa *are* its bin, so counting is a shift and a table look-up, and the limits of float16 (2^-24,
2^-14) are edges of bins.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np

LOWEST, HIGHEST, PER_OCTAVE = -32, 32, 8
#: zero, (0, 2^-32), the octaves, from 2^32
BINS = 3 + (HIGHEST - LOWEST) * PER_OCTAVE
ZERO, TINY, FIRST = 0, 1, 2
#: Lower edges of the octaves' bins, and 2^32: linear within an octave, as a mantissa is.
EDGES = np.append(
    np.ldexp(
        1 + np.tile(np.arange(PER_OCTAVE), HIGHEST - LOWEST) / PER_OCTAVE,
        np.repeat(np.arange(LOWEST, HIGHEST), PER_OCTAVE),
    ),
    2.0**HIGHEST,
)
#: A value that stands for each bin in sums of squares: the middle of the bin.
MIDDLES = np.concatenate([[0.0, EDGES[0] / 2], (EDGES[1:] + EDGES[:-1]) / 2, EDGES[-1:]])

#: Exponent and three bits of mantissa: float32's 16 upper bits without sign and the last four of them.
_CODES, _SHIFT = 2048, 4
_UPPER = 1 if sys.byteorder == "little" else 0
_BIAS = 127
#: OpenCV counts in float32, which holds whole numbers up to 2^24.
MAX_VALUES = 2**24


class MagnitudeCounter:
    """Counts magnitudes of float32 values, block by block into the same memory.

    Magnitudes below 2^-129, the lower part of what float32 can only hold as subnormal, count as zero.
    """

    def __init__(self) -> None:
        self._codes = np.empty(0, np.uint16)
        self._counts = np.zeros((_CODES, 1), np.float32)

    def add(self, block: np.ndarray) -> None:
        """Counts a contiguous block; at most 2^24 values in all before :meth:`take`."""
        upper = block.reshape(-1).view(np.uint16)[_UPPER::2]
        if len(self._codes) < len(upper):
            self._codes = np.empty(len(upper), np.uint16)
        codes = self._codes[: len(upper)]
        np.right_shift(upper, _SHIFT, out=codes)
        np.bitwise_and(codes, np.uint16(_CODES - 1), out=codes)
        # Three times as fast as numpy.bincount, which widens to 64 bits first.
        cv2.calcHist([codes[None]], [0], None, [_CODES], [0, _CODES], self._counts, True)

    def take(self) -> tuple[np.ndarray, int]:
        """Counts of magnitudes since the last call, [BINS] int64, and how many values were not finite (in no bin)."""
        counts = self._counts.reshape(-1).astype(np.int64)
        self._counts[:] = 0
        low, high = ((exponent + _BIAS) * PER_OCTAVE for exponent in (LOWEST, HIGHEST))
        finite = _CODES - PER_OCTAVE  # the last exponent is that of infinity and NaN
        parts = [counts[:1], counts[1:low].sum(keepdims=True), counts[low:high], counts[high:finite].sum(keepdims=True)]
        return np.concatenate(parts), int(counts[finite:].sum())


def share_below(counts: np.ndarray, edge: float) -> float:
    """Share of all values whose magnitude is above zero and below an edge of the bins.

    Raises:
        ValueError: ``edge`` is none.
    """
    place = int(np.searchsorted(EDGES, edge))
    if EDGES[place] != edge:
        raise ValueError(f"{edge} is no edge of the bins")
    total = int(counts.sum())
    return int(counts[TINY : FIRST + place].sum()) / total if total else 0.0


def percentile(counts: np.ndarray, percent: float, largest: float) -> float:
    """The magnitude that ``percent`` % of the values do not exceed, to the width of a bin (at most 12.5 %).

    Within a bin it is interpolated; below 2^-32 it is 2^-32, and nothing is above ``largest``.

    Args:
        largest: the exact largest magnitude.
    """
    cumulative = np.cumsum(counts)
    total = int(cumulative[-1])
    if not total:
        return 0.0
    wanted = percent / 100 * total
    place = int(np.searchsorted(cumulative, max(wanted, 1e-9)))
    if place == ZERO:
        return 0.0
    if place == TINY:
        return float(min(EDGES[0], largest))
    if place == BINS - 1:
        return largest
    low, high = EDGES[place - FIRST], EDGES[place - FIRST + 1]
    inside = (wanted - cumulative[place - 1]) / counts[place]
    return float(min(low + (high - low) * inside, largest))

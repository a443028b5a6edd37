"""Histograms of absolute values that take anything, in bounded memory, and add up exactly.

Bins are logarithmic: 256 to each power of two, read from the bits of the number. They need no range beforehand and
never move, and counts are integers: whatever the order and however often a run was interrupted, the sum is the same.
"""

from __future__ import annotations

import numpy as np

#: Exponents of two that have bins of their own; smaller values count as 2^-20, larger ones as 2^16.
LOWEST, HIGHEST = -20, 16
#: Mantissa bits that a bin keeps: 256 bins to a power of two, each at most 0.4 % wide.
BITS = 8
_SHIFT, _FIRST = 23 - BITS, (LOWEST + 127) << BITS
BINS = (HIGHEST - LOWEST) << BITS
#: Linear bins of the entropy criterion: at the largest value they are as wide as the logarithmic ones.
LINEAR_BINS = 2 << BITS


def counts_of(values: np.ndarray) -> np.ndarray:
    """[BINS] int64: how many of the absolute values lie in each bin; the first bin holds all that are smaller."""
    bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32) & np.uint32(0x7FFFFFFF)
    index = (bits >> np.uint32(_SHIFT)).astype(np.int64) - _FIRST
    return np.bincount(np.clip(index, 0, BINS - 1), minlength=BINS)


def centres() -> np.ndarray:
    """[BINS] float64: middle of each bin; zero for the first, which holds zeros."""
    edges = ((np.arange(BINS + 1, dtype=np.uint32) + _FIRST) << np.uint32(_SHIFT)).astype(np.uint32).view(np.float32)
    middle = (edges[:-1].astype(np.float64) + edges[1:]) / 2
    middle[0] = 0.0
    return middle


def largest_edge(counts: np.ndarray) -> float:
    """Upper edge of the last bin that is not empty; 0 for an empty histogram."""
    filled = np.flatnonzero(counts)
    if not len(filled) or filled[-1] == 0:
        return 0.0
    bits = np.array([filled[-1] + 1 + _FIRST], np.uint32) << np.uint32(_SHIFT)
    return float(bits.astype(np.uint32).view(np.float32)[0])


def divided_by(counts: np.ndarray, octaves: int) -> np.ndarray:
    """[BINS]: the histogram of the values divided by 2^octaves: every bin moves by whole powers of two."""
    moved = np.zeros_like(counts)
    bins = octaves << BITS
    if bins >= 0:
        moved[: BINS - bins] = counts[bins:]
        moved[0] += counts[:bins].sum()
    else:
        moved[-bins:] = counts[:bins]
        moved[-1] += counts[bins:].sum()
        moved[0] += moved[-bins]  # zeros stay zeros
        moved[-bins] = 0
    return moved

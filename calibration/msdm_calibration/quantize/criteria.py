"""Scales from a histogram of absolute values: percentile, entropy and mean-squared error.

Each criterion proposes; :mod:`.choose` takes the proposal that hurts the layer's output least.
"""

from __future__ import annotations

import numpy as np

from msdm_calibration.quantize.grids import Grid
from msdm_calibration.quantize.histogram import BINS, LINEAR_BINS, centres, largest_edge

PERCENTILES = (99.9, 99.99, 99.999)
#: Candidate clipping points as shares of the largest value: from nothing clipped to an eighth.
SHARES = np.geomspace(1.0, 1 / 8, 40)
#: Codes of one sign that the entropy criterion counts (Migacz 2017, "8-bit inference with TensorRT": 128).
LEVELS = 128


def proposals(mass: np.ndarray, grid: Grid) -> dict[str, float]:
    """Criterion -> scale; empty for a tensor that is always zero.

    Args:
        mass: [BINS] float64, weight of the values in each bin of :mod:`.histogram`.
    """
    largest = largest_edge(mass)
    if largest == 0.0:
        return {}
    found = {"max": largest}
    found |= {f"percentile {p:g}": _percentile(mass, p) for p in PERCENTILES}
    found["mse"] = min((float(largest * share) for share in SHARES), key=lambda clip: _error(mass, clip, grid))
    if grid.name == "int8":  # entropy is defined by codes of equal width
        found["entropy"] = _entropy(mass, largest)
    return {name: clip / grid.largest for name, clip in found.items()}


def _percentile(mass: np.ndarray, percent: float) -> float:
    share = np.cumsum(mass) / mass.sum()
    index = int(np.searchsorted(share, percent / 100))
    return largest_edge((np.arange(BINS) <= max(1, min(index, BINS - 1))).astype(float))


def _error(mass: np.ndarray, clip: float, grid: Grid) -> float:
    values = centres()
    filled = mass > 0
    off = values[filled] - grid.rounded(values[filled], clip / grid.largest)
    return float(np.sum(mass[filled] * np.square(off)))


def _entropy(mass: np.ndarray, largest: float) -> float:
    """Clipping point whose 128 codes keep most of the distribution: least Kullback-Leibler divergence."""
    values = centres()
    linear = np.bincount(
        np.minimum(values / largest * LINEAR_BINS, LINEAR_BINS - 1).astype(int), weights=mass, minlength=LINEAR_BINS
    )
    # The peak of exact zeros fits any scale and would drown the rest (as in Migacz).
    linear[0] = linear[1]
    ends = range(LEVELS, LINEAR_BINS + 1, 4)
    best = min(ends, key=lambda end: _divergence(linear, end))
    return largest * best / LINEAR_BINS


def _divergence(linear: np.ndarray, end: int) -> float:
    kept = linear[:end].copy()
    reference = kept.copy()
    reference[-1] += linear[end:].sum()  # what is clipped lands on the last code
    code = np.arange(end) * LEVELS // end
    filled = (kept > 0).astype(float)
    total, places = np.bincount(code, kept, LEVELS), np.bincount(code, filled, LEVELS)
    spread = np.where(kept > 0, (total / np.maximum(places, 1))[code], 0.0)
    p, q = reference / reference.sum(), spread / max(spread.sum(), 1e-300)
    both = p > 0
    return float(np.sum(p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))))


def weight_scales(weight: np.ndarray, axis: int, grid: Grid) -> np.ndarray:
    """[O] float32: for each output channel the scale of least squared error, clipping at most to two thirds.

    Args:
        axis: of the output channels.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float32)
    largest = np.abs(rows).max(1)
    best, least = largest / grid.largest, np.full(len(rows), np.inf)
    for share in np.linspace(1.0, 2 / 3, 18):
        scale = np.maximum(largest * np.float32(share) / grid.largest, np.finfo(np.float32).tiny)
        error = np.square(rows - grid.rounded(rows, scale[:, None])).sum(1)
        better = error < least
        best, least = np.where(better, scale, best), np.where(better, error, least)
    return best.astype(np.float32)

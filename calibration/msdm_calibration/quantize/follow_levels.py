"""Factors by noise level: an input changes size along the trajectory, its scale cannot.

The factor of a level is the power of two nearest to the clipping point that its own histogram asks for, over that of
the level that matters most. The input is divided by it. Dividing by a power of two moves a logarithmic histogram by
whole bins, so nothing is measured again.
"""

from __future__ import annotations

import numpy as np

from msdm_calibration.quantize.criteria import proposals
from msdm_calibration.quantize.grids import Grid
from msdm_calibration.quantize.histogram import divided_by

#: Factors stay within this many powers of two of one.
OCTAVES = 10


def level_factors(counts: np.ndarray, weights: np.ndarray, grid: Grid) -> np.ndarray | None:
    """[N] powers of two, float32; None if all levels ask for the same.

    Args:
        counts: [N, BINS] of one input by noise level; weights: [N] of the levels.
    """
    clips = np.array([proposals(row.astype(np.float64), grid).get("mse", 0.0) for row in counts])
    seen = clips > 0
    if not seen.any():
        return None
    reference = clips[int(np.argmax(np.where(seen, weights, -1.0)))]
    octaves = np.rint(np.log2(np.where(seen, clips, reference) / reference))
    octaves = np.clip(octaves, -OCTAVES, OCTAVES)
    return None if (octaves == 0).all() else np.exp2(octaves).astype(np.float32)


def levelled(counts: np.ndarray, levels: np.ndarray | None) -> np.ndarray:
    """[N, BINS]: histograms of the input divided by its factors."""
    if levels is None:
        return counts
    return np.stack(
        [divided_by(row, int(octaves)) for row, octaves in zip(counts, np.log2(levels).round(), strict=True)]
    )

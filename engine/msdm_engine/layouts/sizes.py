"""Areas and aspect ratios of the nuclei of one map, drawn so that their median is what was asked for."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

#: Standard deviation of log(aspect ratio - 1). In real tiles the quartiles of columnar nuclei lie at 1.6 and 2.6
#: around a median of 2.1, those of round ones at 1.2 and 1.6 around 1.4.
ASPECT_SPREAD = 0.55

#: The excess over one stays below this factor of its median: real columnar tiles reach 3.8 at their 90th percentile.
ASPECT_LIMIT = 2.4

#: Areas stay within this factor of the median.
AREA_LIMIT = 5.0


def stratified_normal(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """[n] standard normal values, one from each n-th of the distribution, in random order.

    Their median is that of the distribution up to 1/n, so that small maps keep to the request too.
    """
    quantile = (rng.permutation(n) + rng.random(n)) / n
    inverse = NormalDist().inv_cdf
    return np.array([inverse(min(max(q, 1e-9), 1 - 1e-9)) for q in quantile.tolist()])


def draw_areas(rng: np.random.Generator, n: int, median_px: float, spread: float) -> NDArray[np.float64]:
    """[n] log-normal areas in pixels; ``spread`` is the standard deviation of the log area."""
    factor = np.exp(spread * stratified_normal(rng, n))
    return median_px * np.clip(factor, 1 / AREA_LIMIT, AREA_LIMIT)


def draw_aspects(rng: np.random.Generator, n: int, median: float) -> NDArray[np.float64]:
    """[n] aspect ratios of at least one; their excess over one is log-normal."""
    return 1 + (median - 1) * np.minimum(np.exp(ASPECT_SPREAD * stratified_normal(rng, n)), ASPECT_LIMIT)

"""Which kind of layout masks look like, by a few statistics of their nuclei's directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msdm_engine.layouts.statistics import Nuclei

#: Weights of the nearest neighbours of a nucleus, the nearest first. It alone is mistaken in a palisade of several
#: rows, where it may stand in the next row; more of them look across the whole epithelium.
NEIGHBOUR_WEIGHTS = np.array([4, 1, 1]) / 6

#: Thresholds of :func:`kind_of`, chosen on drawn layouts of known kind; ``benchmarks/layouts.py`` counts the hits on
#: others and on real tiles.
#: Both spindles and straight palisades share a direction; the more they do, the more often a spindle's nearest
#: neighbour lies beside it.
FLOW_COHERENCE, FLOW_FLANK, FLOW_OFFSET = 0.64, 0.9, 0.42
PALISADE_FLANK, PALISADE_ASPECT = 0.14, 1.5
RING_COHERENCE = 0.22
SPINDLE_ASPECT = 2.4


@dataclass(frozen=True)
class Architecture:
    """Directions of the nuclei of several maps; NaN where too few nuclei define one.

    Args:
        aspect: median aspect ratio of whole nuclei.
        flank: mean of -cos 2(a - d), a the long axis of a nucleus and d the direction to each of its three nearest
            neighbours, weighted: 1 side by side, -1 end to end, 0 random. Drawn palisades have 0.15 to 0.6, scattered
            nuclei up to 0.14.
        coherence: resultant length of the doubled angles within a map, corrected for the number of nuclei: 1 all
            parallel, 0 no common direction (Mardia & Jupp, *Directional Statistics*, 2000, on axes).
        common: that of all maps together.
        direction: radians in (-pi/2, pi/2], mean direction of all long axes, from +x towards +y.
    """

    aspect: float
    flank: float
    coherence: float
    common: float
    direction: float


def architecture_of(maps: Sequence[Nuclei]) -> Architecture:
    """Measures the maps together, each nucleus with equal weight."""
    whole = np.concatenate([nuclei.aspect_ratio[~nuclei.cut] for nuclei in maps])
    doubled = [np.exp(2j * nuclei.angle) for nuclei in maps]
    several = [nuclei for nuclei in maps if len(nuclei.area_px) > len(NEIGHBOUR_WEIGHTS)]
    flank = np.concatenate([_flank(nuclei) for nuclei in several]) if several else np.empty(0)
    weights = np.array([len(d) for d in doubled], np.float64)
    squares = np.array([_unbiased_square(d) if len(d) > 1 else 0.0 for d in doubled])
    together = np.concatenate(doubled)
    return Architecture(
        aspect=float(np.median(whole)) if len(whole) else float("nan"),
        flank=float(flank.mean()) if len(flank) else float("nan"),
        coherence=float(max(0.0, (squares * weights).sum() / weights.sum()) ** 0.5),
        common=max(0.0, _unbiased_square(together)) ** 0.5 if len(together) > 1 else 0.0,
        direction=float(np.angle(together.sum()) / 2),
    )


def kind_of(seen: Architecture) -> str:
    """The kind of layout, a key of ``LAYOUTS``: common flow, else palisades (rings or bands), else scattered.

    Where the statistics are undefined, ``round``.
    """
    most_flank = FLOW_FLANK * (seen.coherence - FLOW_OFFSET)
    if seen.aspect >= PALISADE_ASPECT and seen.coherence >= FLOW_COHERENCE and not seen.flank >= most_flank:
        return "spindle"
    if seen.aspect >= PALISADE_ASPECT and seen.flank >= PALISADE_FLANK:
        return "gland" if seen.coherence < RING_COHERENCE else "columnar"
    return "spindle" if seen.aspect >= SPINDLE_ASPECT else "round"


def _unbiased_square(doubled: NDArray[np.complex128]) -> float:
    """Square of the resultant length without the 1/n that random directions have."""
    n = len(doubled)
    return float((abs(doubled.sum()) ** 2 / n - 1) / (n - 1))


def _flank(nuclei: Nuclei) -> NDArray[np.float64]:
    """[n] weighted -cos 2(a - d) to the nearest neighbours, by centroid; needs more nuclei than weights."""
    points, values = nuclei.centroid, np.empty(len(nuclei.area_px))
    k = len(NEIGHBOUR_WEIGHTS)
    for i in range(len(points)):
        toward = points - points[i]
        squared = (toward**2).sum(axis=1)
        squared[i] = np.inf
        nearest = np.argpartition(squared, k - 1)[:k]
        near = toward[nearest[np.argsort(squared[nearest], kind="stable")]]
        values[i] = -NEIGHBOUR_WEIGHTS @ np.cos(2 * (nuclei.angle[i] - np.arctan2(near[:, 1], near[:, 0])))
    return values

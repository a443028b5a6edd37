"""The statistics that a layout is fitted by, and how drawn maps are brought to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import RequestError
from msdm_engine.layouts.statistics import Nuclei, nuclei_of, touching_labels

#: Rounds of the fit; the best counts.
ROUNDS = 6

#: Crowding moved for each unit that the share of touching nuclei misses: layouts change theirs by 0.2 to 0.6 in all.
CROWDING_GAIN = 1.2

#: Misses of this size count alike in choosing the best round, in the order of Moments.
UNITS = np.array([0.05, 0.05, 0.05, 0.1])

#: Excess of an aspect ratio over one below which it is measured as if it were this: a pixel matters more there.
LEAST_EXCESS = 0.05

#: Range of the standard deviation of the log area that a layout may be asked for.
MOST_SPREAD = 0.8


@dataclass(frozen=True)
class Seen:
    """What a new map takes over from a given one.

    Args:
        height_px, width_px, nuclei: size of the map and number of its nuclei.
        area_px, aspect_ratio: medians of its whole nuclei, drawn towards those of all maps, see :func:`seen_maps`.
        touching: share of its nuclei that touch another.
    """

    height_px: int
    width_px: int
    nuclei: int
    area_px: float
    aspect_ratio: float
    touching: float


@dataclass(frozen=True)
class Moments:
    """Statistics of several maps together, of whole nuclei and against the given map that each map follows.

    Args:
        area: median of the area over that map's.
        area_spread: standard deviation of the log of that, from its quartiles: ln(q75 / q25) / 1.349.
        aspect: median of the aspect ratio's excess over one, over that map's.
        touching: share of nuclei that touch another.
    """

    area: float
    area_spread: float
    aspect: float
    touching: float


@dataclass(frozen=True)
class Sizes:
    """Parameters that the moments decide.

    Args:
        area, aspect: factors on the area of the map that is followed, and on the excess of its aspect ratio over one.
        area_spread, crowding: of the request.
    """

    area: float
    area_spread: float
    aspect: float
    crowding: float


def seen_maps(masks: Sequence[NDArray[np.integer]], nuclei: Sequence[Nuclei]) -> list[Seen]:
    """Measures given [H, W] instance maps; each has one nucleus at least, and some are whole.

    Medians of few nuclei scatter. Each map's is drawn towards the mean of all by as much as its scatter outweighs the
    maps' own differences (empirical Bayes: Efron & Morris, *Journal of the American Statistical
    Association* 70 (1975) 311-319).
    """
    whole = [~n.cut for n in nuclei]
    area = _shrunk([np.log(n.area_px[w]) for n, w in zip(nuclei, whole, strict=True)])
    aspect = _shrunk([np.log(_excess(n.aspect_ratio[w])) for n, w in zip(nuclei, whole, strict=True)])
    return [
        Seen(mask.shape[0], mask.shape[1], n, float(np.exp(a)), float(1 + np.exp(e)), len(touching_labels(mask)) / n)
        for mask, n, a, e in zip(masks, (len(n.area_px) for n in nuclei), area, aspect, strict=True)
    ]


def _shrunk(groups: Sequence[NDArray[np.float64]]) -> list[float]:
    """Median of each group, drawn towards their mean by its share of scatter; the mean for an empty group."""
    filled = [g for g in groups if len(g)]
    medians, sizes = np.array([np.median(g) for g in filled]), np.array([len(g) for g in filled])
    deviation = np.concatenate([np.abs(g - m) for g, m in zip(filled, medians, strict=True)])
    # 1.483: a normal distribution's standard deviation over its median absolute deviation; pi / 2: the variance of a
    # median over that of a mean. The least deviation keeps weights finite where all nuclei are equal.
    scatter = np.pi / 2 * (1.483 * float(np.median(deviation)) + 1e-6) ** 2 / sizes
    between = max(0.0, float(np.mean((medians - medians.mean()) ** 2 - scatter)))
    middle = float(np.average(medians, weights=1 / (between + scatter)))
    shrunk = iter(middle + (medians - middle) * between / (between + scatter))
    return [float(next(shrunk)) if len(g) else middle for g in groups]


def _excess(aspect: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(aspect - 1, LEAST_EXCESS)


def moments_of(masks: Sequence[NDArray[np.integer]], followed: Sequence[Seen]) -> Moments | None:
    """Measures [H, W] instance maps against the given map that each follows; None without a whole nucleus."""
    nuclei = [nuclei_of(mask) for mask in masks]
    pairs = [(n, ~n.cut, seen) for n, seen in zip(nuclei, followed, strict=True)]
    area = np.concatenate([n.area_px[whole] / seen.area_px for n, whole, seen in pairs])
    aspect = np.concatenate([_excess(n.aspect_ratio[whole]) / (seen.aspect_ratio - 1) for n, whole, seen in pairs])
    if not len(area):
        return None
    low, middle, high = np.percentile(area, [25, 50, 75]).tolist()
    touching = sum(len(touching_labels(mask)) for mask in masks) / sum(len(n.area_px) for n in nuclei)
    return Moments(middle, float(np.log(high / low) / 1.349), float(np.median(aspect)), touching)


def matched_sizes(target: Moments, draw: Callable[[Sizes], Moments | None]) -> tuple[Sizes, Moments]:
    """The sizes with which drawn maps come nearest to the target, and what those maps measure.

    Args:
        draw: draws maps with these sizes, from the same random numbers at each call, and measures them.

    Raises:
        RequestError: maps could not be drawn in any round.
    """
    sizes = Sizes(1.0, min(target.area_spread, MOST_SPREAD), 1.0, 0.5)
    best: tuple[float, Sizes, Moments] | None = None
    failure = RequestError("the fitted maps have no whole nucleus", hint="give larger masks")
    for _ in range(ROUNDS):
        try:
            drawn = draw(sizes)
        except RequestError as error:
            failure, drawn = error, None
        if drawn is None:
            # No room: smaller and less elongated nuclei may find it.
            sizes = Sizes(0.95 * sizes.area, sizes.area_spread, 0.95 * sizes.aspect, sizes.crowding)
            continue
        misses = np.array(
            [
                np.log(drawn.area / target.area),
                drawn.area_spread - target.area_spread,
                np.log(drawn.aspect / target.aspect),
                drawn.touching - target.touching,
            ]
        )
        miss = float(np.abs(misses / UNITS).sum())
        if best is None or miss < best[0]:
            best = (miss, sizes, drawn)
        sizes = Sizes(
            sizes.area * float(np.exp(-misses[0])),
            float(np.clip(sizes.area_spread - misses[1], 0, MOST_SPREAD)),
            sizes.aspect * float(np.exp(-misses[2])),
            float(np.clip(sizes.crowding - CROWDING_GAIN * misses[3], 0, 1)),
        )
    if best is None:
        raise failure
    return best[1], best[2]

"""Fits a layout to given instance maps: new maps drawn with it have their statistics.

Each new map follows one of the given ones in the number of its nuclei, their median area and aspect ratio. What all
maps share is fitted by the method of simulated moments (McFadden, *Econometrica* 57 (1989) 995-1026): maps are drawn
with a first guess, measured as the given ones were, and each parameter is moved by what its statistic misses. So what
drawing itself does to a statistic (neighbours that clip each other, nuclei cut by the border, smaller stroma) does not
bias the parameters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import InputError, RequestError, nearest
from msdm_engine.layouts.architecture import Architecture, architecture_of, kind_of
from msdm_engine.layouts.moments import Moments, Seen, Sizes, matched_sizes, moments_of, seen_maps
from msdm_engine.layouts.outlines import OutlineBank
from msdm_engine.layouts.registry import draw_layout, stream
from msdm_engine.layouts.request import (
    KINDS,
    MAX_ASPECT,
    MAX_COVERAGE,
    MAX_SIDE_PX,
    MIN_SIDE_PX,
    ONLY_FOR,
    RANGES,
    LayoutRequest,
)
from msdm_engine.layouts.statistics import nuclei_of

#: Maps drawn in each round of the fit: one for each given map, within these numbers.
SIMULATED_MAPS = (8, 16)

#: They are at most so large, and at least so many nuclei long where the given maps are.
SIMULATED_SIDE_PX, SIMULATED_LENGTHS = 320, 10

#: Share of the largest legal number of nuclei that is drawn: at the limit itself a few requests find no room.
FULL = 0.95

#: A direction is kept where the maps together have this share of the coherence that each has, and at least so much.
COMMON_SHARE, COMMON_COHERENCE = 0.85, 0.25

#: Whole nuclei that areas and aspect ratios are fitted to, at least.
MIN_NUCLEI = 5

#: ``purpose`` of the random numbers that deal out the given maps.
FOLLOW_STREAM = (1 << 32) + 64


@dataclass(frozen=True)
class FittedLayout:
    """A layout fitted to instance maps.

    Args:
        kind: the one that the nuclei's directions look like, or the one that was asked for.
        height_px, width_px: the most frequent size of the given maps.
        sizes: what all new maps share.
        orientation_deg: where all given maps share a direction and the kind has one, else None.
        maps: the given maps that have nuclei.
        empty: number of given maps without nuclei; none is drawn after them.
        given, drawn: moments of the given maps, and of maps drawn in the fit.
        architecture: directions of the given maps.
    """

    kind: str
    height_px: int
    width_px: int
    sizes: Sizes
    orientation_deg: float | None
    maps: tuple[Seen, ...]
    empty: int
    given: Moments
    drawn: Moments
    architecture: Architecture

    def request(
        self, seed: int, index: int = 0, *, height_px: int | None = None, width_px: int | None = None
    ) -> LayoutRequest:
        """The request of map ``index`` of a set.

        Of a given map with more nuclei than the layout can draw, as many are asked for as find room; see
        :meth:`over_full`.

        Raises:
            RequestError: the size is not legal, or too small for the nuclei.
        """
        seen = self.followed(seed, index)
        free = self._free(seen, height_px, width_px, seed, index)
        return replace(free, count=min(_nuclei_at(seen, free), self._most(free)))

    def followed(self, seed: int, index: int) -> Seen:
        """The given map that map ``index`` of a set follows: each once before any again, in an order of the seed's."""
        turn, place = divmod(index, len(self.maps))
        order = stream(seed, turn, FOLLOW_STREAM).permutation(len(self.maps))
        return self.maps[int(order[place])]

    def over_full(self, *, height_px: int | None = None, width_px: int | None = None) -> int:
        """Number of given maps that hold more nuclei than the layout can draw at this size."""
        requests = [(seen, self._free(seen, height_px, width_px, 0, 0)) for seen in self.maps]
        return sum(_nuclei_at(seen, free) > self._most(free) for seen, free in requests)

    def _free(self, seen: Seen, height_px: int | None, width_px: int | None, seed: int, index: int) -> LayoutRequest:
        """The request without its number of nuclei."""
        low, high = RANGES["area_px"]
        most = MAX_ASPECT.get(self.kind, RANGES["aspect_ratio"][1])
        return LayoutRequest(
            self.kind,
            self.height_px if height_px is None else height_px,
            self.width_px if width_px is None else width_px,
            seed,
            index,
            area_px=min(max(seen.area_px * self.sizes.area, low), high),
            area_spread=self.sizes.area_spread,
            aspect_ratio=min(1 + (seen.aspect_ratio - 1) * self.sizes.aspect, most),
            crowding=self.sizes.crowding,
            orientation_deg=self.orientation_deg,
        )

    def _most(self, free: LayoutRequest) -> int:
        return max(1, int(FULL * free.count_at(MAX_COVERAGE[self.kind])))


def _nuclei_at(seen: Seen, at: LayoutRequest) -> int:
    """Nuclei at another size: as many for the area that the centres of nuclei in view may lie in."""
    margin = (at.length_px + at.breadth_px) / 2
    seen_px = (seen.height_px + margin) * (seen.width_px + margin)
    return max(1, round(seen.nuclei * (at.height_px + margin) * (at.width_px + margin) / seen_px))


def fit_layout(
    masks: Sequence[NDArray[np.integer]], kind: str | None = None, outlines: OutlineBank | None = None
) -> FittedLayout:
    """Fits a layout to instance maps of one kind of tissue. Deterministic.

    Args:
        masks: [H, W] instance maps, of any sizes.
        kind: of the layout; None takes the one that the nuclei's directions look like, see
            :func:`msdm_engine.layouts.architecture.kind_of`.
        outlines: to draw with; None takes the bank that ships with the engine.

    Raises:
        InputError: fewer than 5 whole nuclei in all maps, or nuclei or maps of a size that no layout has.
        RequestError: an unknown kind, or no map could be drawn with sizes near the given ones.
    """
    if kind is not None and kind not in KINDS:
        raise RequestError(f"unknown layout '{kind}'", note=nearest(kind, KINDS))
    measured = [nuclei_of(mask) for mask in masks]
    filled = [(mask, nuclei) for mask, nuclei in zip(masks, measured, strict=True) if len(nuclei.area_px)]
    _check_nuclei([area for nuclei in measured for area in nuclei.area_px[~nuclei.cut].tolist()], len(masks))
    height, width = _common_size(masks)
    architecture = architecture_of([nuclei for _, nuclei in filled])
    maps = tuple(seen_maps([mask for mask, _ in filled], [nuclei for _, nuclei in filled]))
    given = moments_of([mask for mask, _ in filled], maps)
    assert given is not None  # whole nuclei were counted above
    chosen = kind_of(architecture) if kind is None else kind
    start = FittedLayout(
        chosen,
        height,
        width,
        Sizes(1.0, 0.0, 1.0, 0.5),
        _orientation(chosen, architecture),
        maps,
        len(masks) - len(filled),
        given,
        given,
        architecture,
    )
    sizes, drawn = _simulated(start, outlines)
    return replace(start, sizes=sizes, drawn=drawn)


def _simulated(start: FittedLayout, outlines: OutlineBank | None) -> tuple[Sizes, Moments]:
    """Sizes by simulated moments; the maps are of the size of the given ones, smaller where those are large."""
    number = min(max(len(start.maps), SIMULATED_MAPS[0]), SIMULATED_MAPS[1])
    followed = [start.followed(0, index) for index in range(number)]
    length = max(math.sqrt(4 * seen.area_px * seen.aspect_ratio / math.pi) for seen in followed)
    limit = max(SIMULATED_SIDE_PX, math.ceil(SIMULATED_LENGTHS * length))
    size = {"height_px": min(start.height_px, limit), "width_px": min(start.width_px, limit)}
    nuclei = [seen.nuclei for seen in followed]
    target = replace(start.given, touching=float(np.average([seen.touching for seen in followed], weights=nuclei)))

    def draw(sizes: Sizes) -> Moments | None:
        fitted = replace(start, sizes=sizes)
        return moments_of([draw_layout(fitted.request(0, i, **size), outlines) for i in range(number)], followed)

    return matched_sizes(target, draw)


def _orientation(kind: str, seen: Architecture) -> float | None:
    """The common direction of all maps as the kind counts it: a palisade runs across its nuclei."""
    kept = seen.common >= max(COMMON_COHERENCE, COMMON_SHARE * seen.coherence)
    if kind not in ONLY_FOR["orientation_deg"] or not kept:
        return None
    degrees = math.degrees(seen.direction) + (90 if kind == "columnar" else 0)
    return (degrees + 90) % 180 - 90


def _check_nuclei(area_px: Sequence[int], masks: int) -> None:
    if len(area_px) < MIN_NUCLEI:
        raise InputError(
            f"{len(area_px)} whole nuclei in {masks} masks are too few to fit a layout to",
            note=f"at least {MIN_NUCLEI} that the border does not cut",
            hint="give more masks",
        )
    low, high = RANGES["area_px"]
    if not low <= median(area_px) <= high:
        raise InputError(
            f"the nuclei of the given masks have a median area of {median(area_px):g} px",
            note=f"layouts draw {low:g} to {high:g} px",
            hint="scale the masks, without interpolating labels",
        )


def _common_size(masks: Sequence[NDArray[np.integer]]) -> tuple[int, int]:
    height, width = Counter((mask.shape[0], mask.shape[1]) for mask in masks).most_common(1)[0][0]
    if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in (height, width)):
        raise InputError(
            f"most of the given masks are {width} x {height} px",
            note=f"layouts are {MIN_SIDE_PX} to {MAX_SIDE_PX} px a side",
        )
    return height, width

"""Mixtures: several layouts in one map, each in its own region."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import RequestError
from msdm_engine.layouts.canvas import Canvas
from msdm_engine.layouts.outlines import OutlineBank
from msdm_engine.layouts.regions import cut_by_area
from msdm_engine.layouts.registry import draw_into, stream
from msdm_engine.layouts.request import MAX_COVERAGE, MAX_NUCLEI, MIN_SIDE_PX, LayoutRequest, check_number

MAX_PARTS = 8

#: A region must hold so many nuclei of median area, as a whole map must.
ROOM = 8

#: A window around a region is wider by this on each side, in lengths of a nucleus of median area: the largest, of five
#: times that area and up to twice its elongation, reach out of their region by less.
MARGIN_LENGTHS = 1.5

#: ``purpose`` of the random numbers that cut the plane; part k draws from this plus 1 + k.
REGIONS_STREAM = 1 << 32


@dataclass(frozen=True)
class MixturePart:
    """One layout of a mixture. Exactly one of ``share`` and ``region``.

    Args:
        kind: a key of :data:`msdm_engine.layouts.LAYOUTS`.
        share: of the plane, above 0 and up to 1.
        region: value of its pixels in the drawn regions, 1 to 255.
        options: of :class:`LayoutRequest`; count is of this region, and density within it.
    """

    kind: str
    share: float | None = None
    region: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class MixtureRequest:
    """One map of several layouts to draw.

    Args:
        parts: 1 to 8, all by share (together 1) or all by region.
        height_px, width_px: 64 to 4096; those of the drawn regions where these are given.
        seed, index: the random stream, as of :class:`LayoutRequest`.
        regions: [height_px, width_px] uint8 whose values name parts; 0 stays empty.

    Raises:
        RequestError: see :class:`LayoutRequest`; shares that do not sum to 1; regions of another size, or whose values
            and parts do not match; a region too small for its nuclei or their number.
    """

    parts: tuple[MixturePart, ...]
    height_px: int
    width_px: int
    seed: int
    index: int = 0
    regions: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.parts) <= MAX_PARTS:
            raise RequestError(f"a mixture of {len(self.parts)} layouts", note=f"legal: 1 to {MAX_PARTS}")
        pixels = self._check_shares() if self.regions is None else self._check_regions(self.regions)
        for part, size in zip(self.parts, pixels, strict=True):
            self._check_room(part, size)

    def layout(self, part: MixturePart, **changes: Any) -> LayoutRequest:
        """The request of a part as if it had the whole map, without its count."""
        own = {k: v for k, v in part.options.items() if k not in ("count", "density_per_mpx")}
        place = {"height_px": self.height_px, "width_px": self.width_px, "seed": self.seed, "index": self.index}
        if shared := sorted({"kind", *place} & set(own)):
            raise RequestError(f"a part of the mixture has its own {', '.join(shared)}", note="the mixture has one")
        return LayoutRequest.from_options(kind=part.kind, **{**place, **own, **changes})

    def _check_shares(self) -> list[int]:
        shares = [part.share for part in self.parts]
        if any(part.region is not None for part in self.parts) or any(share is None for share in shares):
            raise RequestError("a part of the mixture has no share, or names a region without drawn regions")
        wrong = [share for share in shares if not 0 < float(share or 0) <= 1]
        if wrong or abs(sum(float(share or 0) for share in shares) - 1) > 1e-6:
            named = ", ".join(f"{part.kind}:{part.share:g}" for part in self.parts)
            raise RequestError(f"the shares {named} are not legal", note="each is above 0, and together they are 1")
        # Illegal sizes are named by the request of a part.
        return [round(float(part.share or 0) * self.layout(part).height_px * self.width_px) for part in self.parts]

    def _check_regions(self, regions: NDArray[np.uint8]) -> list[int]:
        values = [part.region for part in self.parts]
        if any(part.share is not None for part in self.parts) or None in values or len(set(values)) < len(values):
            raise RequestError("each part of drawn regions names one value of them, its own, and no share")
        if regions.shape != (self.height_px, self.width_px) or regions.dtype != np.uint8:
            raise RequestError(
                f"the regions are {regions.shape} {regions.dtype}", note=f"{(self.height_px, self.width_px)} uint8"
            )
        drawn = np.bincount(regions.ravel(), minlength=256)
        unnamed = [value for value in np.flatnonzero(drawn).tolist() if value and value not in values]
        absent = [value for value in values if value is not None and not (0 < value < 256 and drawn[value])]
        if unnamed or absent:
            what = f"no layout for {unnamed}" if unnamed else f"no pixel of {absent}"
            raise RequestError(
                f"the drawn regions have {what}",
                note=f"values in the regions: {[v for v in np.flatnonzero(drawn).tolist() if v]}, 0 stays empty",
                hint="name one layout for each value, as in --region-kinds 1=columnar,2=spindle",
            )
        return [int(drawn[value]) for value in values if value is not None]

    def _check_room(self, part: MixturePart, size_px: int) -> None:
        whole = self.layout(part)
        if size_px < ROOM * whole.median_area_px:
            raise RequestError(
                f"the region of layout '{part.kind}' has {size_px} px, too few for nuclei of {whole.median_area_px:g}",
                note=f"legal: nuclei up to 1/{ROOM} of their region",
                hint="ask for smaller nuclei, a larger share or a larger picture",
            )
        wanted = self.wanted(part, size_px)
        most = int(whole.count_at(MAX_COVERAGE[part.kind]) * size_px / (self.height_px * self.width_px))
        if wanted is not None and wanted > most:
            raise RequestError(
                f"{wanted} nuclei of {whole.median_area_px:g} px are too many for the region of layout '{part.kind}', "
                f"{size_px} px",
                note=f"legal: up to {most}",
                hint="ask for fewer or smaller nuclei, or a larger share",
            )

    def wanted(self, part: MixturePart, size_px: int) -> int | None:
        """Number of nuclei asked of a part whose region has ``size_px`` pixels, if any was.

        Raises:
            RequestError: count and density are both given, or one is not legal.
        """
        count, density = (part.options.get(name) for name in ("count", "density_per_mpx"))
        check_number("count", count)
        check_number("density_per_mpx", density)
        if count is not None and density is not None:
            raise RequestError("count and density_per_mpx are both given", hint="give one of them")
        return count if density is None else max(1, round(density * size_px / 1e6))


@dataclass(frozen=True, eq=False)
class MixtureMap:
    """A drawn mixture.

    Args:
        labels: [H, W] uint16 instance map; the nuclei of part k come before those of part k + 1.
        regions: [H, W] uint8, k + 1 in the region of part k, 0 in none.
        part_of: [n] uint8, number of the part (from 1) of each nucleus, in the order of the labels.
    """

    labels: NDArray[np.uint16]
    regions: NDArray[np.uint8]
    part_of: NDArray[np.uint8]


def draw_mixture(request: MixtureRequest, outlines: OutlineBank | None = None) -> MixtureMap:
    """Draws each layout in its region: no nuclei overlap, and at least 80 % of each lies in the region of its part.

    The map is a function of the request and the outlines alone.

    Raises:
        RequestError: a part has no nucleus, or fewer than asked for found room.
    """
    shape = (request.height_px, request.width_px)
    if request.regions is None:
        rng = stream(request.seed, request.index, REGIONS_STREAM)
        regions = cut_by_area(rng, *shape, [float(part.share or 0) for part in request.parts])
    else:
        numbers = np.zeros(256, np.uint8)
        numbers[[part.region or 0 for part in request.parts]] = np.arange(1, len(request.parts) + 1)
        regions = numbers[request.regions]
    labels, part_of = np.zeros(shape, np.uint16), np.empty(0, np.uint8)
    for number, part in enumerate(request.parts, start=1):
        canvas = _draw_part(request, part, number, regions == number, labels, outlines)
        if canvas.count + len(part_of) > MAX_NUCLEI:
            raise RequestError(f"the mixture holds more than {MAX_NUCLEI} nuclei", hint="ask for a smaller picture")
        part_of = np.append(part_of, np.full(canvas.count, number, np.uint8))
    return MixtureMap(labels, regions, part_of)


def _draw_part(
    request: MixtureRequest,
    part: MixturePart,
    number: int,
    region: NDArray[np.bool_],
    labels: NDArray[np.uint16],
    outlines: OutlineBank | None,
) -> Canvas:
    """Draws a part into ``labels``, in the window around its region, so that its layout is centred there."""
    y, x = _window(region, request.layout(part))
    wanted = request.wanted(part, int(np.count_nonzero(region)))
    layout = request.layout(part, height_px=y.stop - y.start, width_px=x.stop - x.start, count=wanted)
    canvas = Canvas.empty(layout.height_px, layout.width_px)
    canvas.region = np.ascontiguousarray(region[y, x]).view(np.uint8)
    canvas.foreign = (labels[y, x] != 0).view(np.uint8)
    before = int(labels.max())
    draw_into(canvas, layout, stream(request.seed, request.index, REGIONS_STREAM + number), outlines)
    if not canvas.count:
        raise RequestError(
            f"no nucleus of layout '{part.kind}' found room in its region, seed {request.seed}, index {request.index}",
            hint="ask for smaller nuclei, a larger share, or try another seed",
        )
    own = canvas.labels != 0
    labels[y, x][own] = canvas.labels[own] + before
    return canvas


def _window(region: NDArray[np.bool_], whole: LayoutRequest) -> tuple[slice, slice]:
    """Rows and columns around a region, so wide that only the map's own border cuts the nuclei of the layout."""
    margin = math.ceil(MARGIN_LENGTHS * whole.length_px)
    least = max(MIN_SIDE_PX, math.ceil(max(whole.length_px, (ROOM * whole.median_area_px) ** 0.5)))
    slices = []
    for axis in (0, 1):
        used, side = np.flatnonzero(region.any(axis=1 - axis)), region.shape[axis]
        first, last = max(0, int(used[0]) - margin), min(side, int(used[-1]) + 1 + margin)
        extent = max(last - first, min(least, side))
        start = min(max(0, (first + last - extent) // 2), side - extent)
        slices.append(slice(start, start + extent))
    if (slices[0].stop - slices[0].start) * (slices[1].stop - slices[1].start) < ROOM * whole.median_area_px:
        return slice(0, region.shape[0]), slice(0, region.shape[1])
    return slices[0], slices[1]

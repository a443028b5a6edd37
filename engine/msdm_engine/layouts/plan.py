"""From the options of ``msdm-engine layout`` to the request of each map."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.errors import RequestError
from msdm_engine.layouts.fit import FittedLayout, fit_layout
from msdm_engine.layouts.map_set import read_maps
from msdm_engine.layouts.mixture import MixturePart, MixtureRequest
from msdm_engine.layouts.regions import read_regions
from msdm_engine.layouts.request import ONLY_FOR, LayoutRequest
from msdm_engine.layouts.statistics import MapStatistics, statistics_of

DEFAULT_SIDE_PX = 256

#: Options of the command and the fields of a LayoutRequest that they give.
FIELDS = {
    "area": "area_px",
    "aspect": "aspect_ratio",
    "spread": "area_spread",
    "density": "density_per_mpx",
    "nuclei": "count",
    "crowding": "crowding",
    "rows": "rows",
    "stroma": "stroma",
    "orientation": "orientation_deg",
}

AnyRequest = LayoutRequest | MixtureRequest


@dataclass(frozen=True)
class Plan:
    """What to draw.

    Args:
        request: of map ``index``.
        header: for the record of the set.
        fitted: where the maps follow given ones, and the statistics of those.
    """

    request: Callable[[int], AnyRequest]
    header: Mapping[str, Any]
    fitted: FittedLayout | None = None
    given: tuple[MapStatistics, ...] = field(default=())


def plan_from_options(options: Mapping[str, Any]) -> Plan:
    """The plan that the options of the command describe; contradictions are a RequestError."""
    sources = [name for name in ("mix", "regions", "like") if options[name] is not None]
    if len(sources) > 1 or (options["layout"] is not None and sources not in ([], ["like"])):
        sources = [name for name in ("layout", *sources) if options[name] is not None]
        raise RequestError(f"--{' and --'.join(sources)} are given", note="one of them says what to draw")
    if (options["regions"] is None) != (options["region_kinds"] is None):
        raise RequestError(
            "--regions and --region-kinds go together", hint="as in --regions drawn.png --region-kinds 1=columnar"
        )
    if sources == ["like"]:
        return _like(options)
    if sources == ["mix"]:
        return _mixture(options, _mix_parts(options["mix"]), size_of(options["size"]), None)
    if sources == ["regions"]:
        if options["size"] is not None:
            raise RequestError("--size and --regions are given", note="the drawn regions decide the size")
        regions = read_regions(options["regions"])
        return _mixture(options, _region_parts(options["region_kinds"]), regions.shape, regions)
    if options["layout"] is None:
        raise RequestError("what to draw is not clear", note="give one of --layout KIND, --mix, --regions, --like DIR")
    return _single(options)


def size_of(text: str | None) -> tuple[int, int]:
    """Height and width in px of ``N`` or ``HxW``."""
    sides = [str(DEFAULT_SIDE_PX)] if text is None else text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise RequestError(f"size is {text!r}", note="a side in px, or height x width, as in 256x320")
    return int(sides[0]), int(sides[-1])


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[option] for option, name in FIELDS.items() if options[option] is not None}


def _single(options: Mapping[str, Any]) -> Plan:
    height, width = size_of(options["size"])
    first = LayoutRequest.from_options(
        kind=options["layout"], height_px=height, width_px=width, seed=options["seed"], **_given(options)
    )
    return Plan(lambda index: dataclasses.replace(first, index=index), {"request": first})


def _mix_parts(text: str) -> list[MixturePart]:
    parts = []
    for item in text.split(","):
        kind, _, share = item.partition(":")
        try:
            parts.append(MixturePart(kind.strip(), share=float(share)))
        except ValueError as error:
            raise RequestError(
                f"the mixture holds {item!r}", note="KIND:SHARE, as in columnar:0.6,round:0.4"
            ) from error
    return parts


def _region_parts(text: str) -> list[MixturePart]:
    parts = []
    for item in text.split(","):
        value, _, kind = item.partition("=")
        if not (value.strip().isascii() and value.strip().isdigit()):
            raise RequestError(f"the region kinds hold {item!r}", note="VALUE=KIND, as in 1=columnar,2=spindle")
        parts.append(MixturePart(kind.strip(), region=int(value)))
    return parts


def _mixture(
    options: Mapping[str, Any], parts: list[MixturePart], size: tuple[int, ...], regions: np.ndarray | None
) -> Plan:
    given = _given(options)
    for name, kinds in ONLY_FOR.items():
        if name in given and not any(part.kind in kinds for part in parts):
            raise RequestError(f"no layout of the mixture has the option {name}", note=f"only: {', '.join(kinds)}")
    counts = _shared_out(given.pop("count", None), parts, regions)
    parts = [
        dataclasses.replace(
            part,
            options={k: v for k, v in given.items() if part.kind in ONLY_FOR.get(k, (part.kind,))}
            | ({} if count is None else {"count": count}),
        )
        for part, count in zip(parts, counts, strict=True)
    ]
    first = MixtureRequest(tuple(parts), size[0], size[1], options["seed"], regions=regions)
    header = {"mixture": parts, "height_px": size[0], "width_px": size[1], "seed": options["seed"]}
    return Plan(lambda index: dataclasses.replace(first, index=index), header)


def _shared_out(count: int | None, parts: list[MixturePart], regions: np.ndarray | None) -> list[int | None]:
    """The number of nuclei shared out by area, largest remainders first; each part gets one at least."""
    if count is None:
        return [None] * len(parts)
    if regions is None:
        areas = np.array([part.share or 0 for part in parts])
    else:
        areas = np.array([np.count_nonzero(regions == part.region) for part in parts])
    if not 0 < areas.sum() < np.inf or count < len(parts):
        raise RequestError(f"{count} nuclei cannot be shared out among {len(parts)} regions")
    exact = areas / areas.sum() * count
    shared = np.maximum(np.floor(exact).astype(int), 1)
    for k in np.argsort(shared - exact, kind="stable")[: max(0, count - int(shared.sum()))]:
        shared[k] += 1
    return [int(n) for n in shared]


def _like(options: Mapping[str, Any]) -> Plan:
    for option in FIELDS:
        if options[option] is not None:
            raise RequestError(
                f"--{option} and --like are given",
                note="the given masks decide it",
                hint="edit the drawn maps with `msdm-engine edit`, or draw with --layout",
            )
    folder: Path = options["like"]
    masks = [labels for _, labels in read_maps(folder)]
    fitted = fit_layout(masks, options["layout"])
    height, width = (None, None) if options["size"] is None else size_of(options["size"])
    size = {"height_px": height, "width_px": width}
    over = fitted.over_full(**size)
    header = {"like": {"folder": folder.name, "masks": len(masks), "over_full": over, "fitted": fitted}}
    return Plan(
        lambda index: fitted.request(options["seed"], index, **size),
        header,
        fitted,
        tuple(statistics_of(mask) for mask in masks),
    )

"""What is compared in the section on control: colours in CIELAB, nuclei in numbers, positions between two groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from msdm_engine.conditions.colour import Colour, colour_from_image
from msdm_engine.layouts.statistics import nuclei_of
from msdm_engine.metrics.colour_difference import ciede2000, lab_from_rgb
from msdm_train.data.crops import Crop
from msdm_train.evaluation.samples import Sample

REGIONS = ("foreground", "background")
#: Two conditions nearer than this (CIEDE2000) do not show which of them a picture follows.
MIN_APART = 5.0


def mean_lab(pictures: Sequence[Sample | Crop]) -> NDArray[np.float64]:
    """[n, 2, 3] L*, a*, b* of the mean sRGB of foreground and background; nan for a region without pixels."""
    return np.stack([_lab(colour_from_image(p.image, p.instances)) for p in pictures])


def _lab(colour: Colour) -> NDArray[np.float64]:
    found = np.full((len(REGIONS), 3), np.nan)
    for i, region in enumerate(REGIONS):
        asked = getattr(colour, region)
        if asked is not None:
            found[i] = lab_from_rgb(np.asarray(asked.mean))
    return found


def colour_errors(asked: NDArray[np.float64], came: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 2] CIEDE2000 of the mean colours of foreground and background; nan where either lacks the region."""
    known = np.asarray(np.isfinite(asked).all(-1) & np.isfinite(came).all(-1))
    difference = ciede2000(np.where(known[..., None], asked, 0), np.where(known[..., None], came, 0))
    return np.where(known, difference, np.nan)


@dataclass(frozen=True)
class Shape:
    """Nuclei of one map: number of all, areas in px and aspect ratios of those that the border does not cut."""

    count: int
    area_px: NDArray[np.float64]
    aspect_ratio: NDArray[np.float64]


def shape_of(instances: NDArray[np.integer]) -> Shape:
    """Measures an [H, W] instance map."""
    nuclei = nuclei_of(instances)
    return Shape(len(nuclei.area_px), nuclei.area_px[~nuclei.cut].astype(np.float64), nuclei.aspect_ratio[~nuclei.cut])


@dataclass(frozen=True)
class Measure:
    """A number of nuclei.

    Args:
        one: of one map; nan where it is not defined.
        values: what a distribution over several maps is made of.
    """

    name: str
    unit: str
    one: Callable[[Shape], float]
    values: Callable[[Shape], NDArray[np.float64]]


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if len(values) else float("nan")


MEASURES = (
    Measure("count", "nuclei a picture", lambda s: float(s.count), lambda s: np.array([float(s.count)])),
    Measure("area", "px", lambda s: _median(s.area_px), lambda s: s.area_px),
    Measure("aspect ratio", "", lambda s: _median(s.aspect_ratio), lambda s: s.aspect_ratio),
)


def relative_errors(asked: Sequence[Shape], came: Sequence[Shape], measure: Measure) -> NDArray[np.float64]:
    """[n] |came - asked| / asked, of maps with nuclei in both; nan elsewhere, but for a count that came as none."""
    a, b = (np.array([measure.one(s) for s in shapes]) for shapes in (asked, came))
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.abs(b - a) / a
    return np.where(a > 0, errors, np.nan)


def distance_of(real: Sequence[Shape], made: Sequence[Shape], measure: Measure) -> float:
    """Wasserstein-1 distance of the pooled distributions, in the measure's unit; nan where one is empty."""
    a, b = (np.concatenate([measure.values(s) for s in shapes] or [np.empty(0)]) for shapes in (real, made))
    return float(wasserstein_distance(a, b)) if len(a) and len(b) else float("nan")


def between_fields(shapes: Sequence[Shape], fields: Sequence[str], measure: Measure) -> float:
    """Mean distance of each field to all others: what disjoint real fields differ by. nan for a single field."""
    names = sorted(set(fields))
    if len(names) < 2:
        return float("nan")
    return float(
        np.nanmean(
            [
                distance_of(
                    [s for s, f in zip(shapes, fields, strict=True) if f == name],
                    [s for s, f in zip(shapes, fields, strict=True) if f != name],
                    measure,
                )
                for name in names
            ]
        )
    )


def share_of_way(
    before: NDArray[np.float64], after: NDArray[np.float64], origin: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[n] how far a change goes from origin to target, along the line through both: 0 stays, 1 arrives.

    (after - before) . (target - origin) / |target - origin|^2, each [n, D]; nan where origin and target coincide.
    """
    way = target - origin
    length = (way**2).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(length > 0, ((after - before) * way).sum(-1) / length, np.nan)

"""Edits of which nuclei a map holds. Maps come and go as [H, W] uint16, labels 1..n without gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import InputError, RequestError
from msdm_engine.layouts.canvas import Canvas
from msdm_engine.layouts.fields import Grid
from msdm_engine.layouts.outlines import OutlineBank, Shapes, shapes_from_bank
from msdm_engine.layouts.request import MAX_NUCLEI, RANGES
from msdm_engine.layouts.scatter import gap_weight
from msdm_engine.layouts.statistics import Nuclei, nuclei_of

Labels = NDArray[np.uint16]

#: How often a nucleus that found no room looks for another place (add) or takes another outline (swap). From half of
#: them on it may lose more to its neighbours.
MAX_TRIES = 40
MAX_CLIP, LATE_MAX_CLIP = 0.08, 0.25

#: Factor on the area of a swapped outline, in each tenth of the tries.
SMALLER = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.95, 0.9, 0.85, 0.8)

#: Added nuclei lie mostly up to about twice this from others, in roots of the median area: in the tissue, not in the
#: middle of a lumen. In the second half of the tries anywhere.
REACH = 1.2

#: Added nuclei lie along the nearest one up to this standard deviation, radians.
ANGLE_JITTER = 0.4


def removed(labels: Labels, share: float, rng: np.random.Generator) -> Labels:
    """See :class:`msdm_engine.layouts.edit.Remove`."""
    n = int(labels.max())
    keep = np.ones(n + 1, bool)
    keep[1 + rng.permutation(n)[: round(share * n)]] = False
    return labels * keep[labels]


def added(labels: Labels, count: int, rng: np.random.Generator, bank: OutlineBank) -> Labels:
    """See :class:`msdm_engine.layouts.edit.Add`."""
    n = int(labels.max())
    nuclei = nuclei_of(labels)
    models = np.flatnonzero(_drawable(nuclei))
    if not len(models):
        raise InputError(
            "the map has no nucleus to take an area from",
            note=f"needed: one of {RANGES['area_px'][0]} px or more that the border does not cut",
            hint="leave such maps out, or draw them with `msdm-engine layout`",
        )
    if n + count > MAX_NUCLEI:
        raise RequestError(f"{n} nuclei and {count} more do not fit 16-bit labels", note=f"at most {MAX_NUCLEI}")
    model = models[rng.integers(0, len(models), count)]
    canvas = Canvas.empty(labels.shape[0], labels.shape[1])
    canvas.foreign = (labels != 0).view(np.uint8)
    shapes = _all_shapes(bank)
    size = float(np.sqrt(np.median(nuclei.area_px[models])))
    grid = Grid(labels.shape[0], labels.shape[1], max(1.0, size / 4), 0.0)
    left = np.arange(count)
    for attempt in range(MAX_TRIES):
        early = attempt < MAX_TRIES // 2
        weight = gap_weight(canvas.taken, grid)
        if early:
            weight = weight * np.exp(-np.sqrt(weight) / (REACH * size) ** 2)
        if not len(left) or not weight.any():
            break
        places = grid.draw_points(rng, weight, len(left))
        angles = _angles_near(nuclei, places) + ANGLE_JITTER * rng.standard_normal(len(left))
        areas, aspects = nuclei.area_px[model[left]].astype(np.float64), nuclei.aspect_ratio[model[left]]
        polygons = shapes.polygons(rng, areas, aspects, angles)
        clip = MAX_CLIP if early else LATE_MAX_CLIP
        failed = [
            i
            for i, polygon, (x, y), angle in zip(left.tolist(), polygons, places.tolist(), angles.tolist(), strict=True)
            if not canvas.add(polygon, (x, y), angle, gap_px=int(attempt < MAX_TRIES // 4), max_clip=clip)
        ]
        left = np.array(failed, dtype=int)
    if len(left):
        raise RequestError(
            f"only {count - len(left)} of {count} added nuclei found room beside the {n} in the map",
            hint="add fewer, or shrink or remove some before",
        )
    return np.where(canvas.labels > 0, canvas.labels + np.uint16(n), labels)


def swapped(labels: Labels, share: float, rng: np.random.Generator, bank: OutlineBank) -> Labels:
    """See :class:`msdm_engine.layouts.edit.Swap`."""
    nuclei = nuclei_of(labels)
    whole = np.flatnonzero(_drawable(nuclei))
    count, done = round(share * len(whole)), 0
    shapes, result = _all_shapes(bank), labels.copy()
    for k in rng.permutation(whole).tolist():
        if done == count:
            break
        done += _swap_one(result, k, nuclei, shapes, rng)
    if done < count:
        raise RequestError(
            f"only {done} of {count} nuclei could be swapped: other outlines did not fit between their neighbours",
            hint="swap a smaller share",
        )
    return result


def _swap_one(labels: Labels, k: int, nuclei: Nuclei, shapes: Shapes, rng: np.random.Generator) -> bool:
    """Gives nucleus k another outline in place, and says whether one found room."""
    old = labels == k + 1
    canvas = Canvas(labels)
    labels[old] = 0
    own = (nuclei.area_px[k], nuclei.aspect_ratio[k], nuclei.angle[k])
    area, aspect, angle = (np.full(MAX_TRIES, value, np.float64) for value in own)
    area *= np.repeat(np.array(SMALLER), MAX_TRIES // len(SMALLER))
    x, y = nuclei.centroid[k].tolist()
    for attempt, polygon in enumerate(shapes.polygons(rng, area, aspect, angle)):
        clip = MAX_CLIP if attempt < MAX_TRIES // 2 else LATE_MAX_CLIP
        found = canvas.fit(polygon, (x, y), max_clip=clip)
        if found is not None:
            labels[found[0]][found[1]] = k + 1
            return True
    labels[old] = k + 1
    return False


def _drawable(nuclei: Nuclei) -> NDArray[np.bool_]:
    """[n] whole, and large enough for a drawn outline to keep its shape."""
    return ~nuclei.cut & (nuclei.area_px >= RANGES["area_px"][0])


def _all_shapes(bank: OutlineBank) -> Shapes:
    """Every outline of the bank: their aspect ratios, not their architectures, are asked for."""
    return shapes_from_bank(bank, min(bank.coefficients), elongated_from_others=0.0)


def _angles_near(nuclei: Nuclei, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n] long axis of the nucleus nearest to each point [n, 2] (x, y)."""
    nearest = [int(np.argmin(((nuclei.centroid - point) ** 2).sum(axis=1))) for point in points]
    return nuclei.angle[nearest]

"""Nuclei at random places of a weighted region: layout ``round``, and the stroma of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.layouts.canvas import Canvas, Role
from msdm_engine.layouts.fields import Grid, smooth_noise
from msdm_engine.layouts.outlines import Shapes, shapes_from_bank
from msdm_engine.layouts.scene import Scene
from msdm_engine.layouts.sizes import draw_areas, draw_aspects

#: How often a nucleus that found no room looks for another place: at random, then in the widest gaps, and at last
#: without a free margin and losing more to their neighbours.
MAX_TRIES, RANDOM_TRIES, MARGIN_TRIES = 60, 12, 24
MAX_CLIP, LATE_MAX_CLIP = 0.08, 0.15

#: Standard deviation of a round nucleus against the direction of its surroundings, radians.
LOCAL_JITTER = 0.5

Angles = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Scatter:
    """How to scatter nuclei.

    Args:
        shapes: outlines to draw.
        area_px, area_spread, aspect_ratio: medians and spread, see LayoutRequest.
        angles: (x, y) points [n, 2] -> long-axis angles [n].
        cluster: share of nuclei that are placed beside one that is there already.
        touching: share of nuclei without a free pixel around them.
        reach: range of the distance between such two, in radii of a circle of the nucleus's area.
        role: recorded.
    """

    shapes: Shapes
    area_px: float
    area_spread: float
    aspect_ratio: float
    angles: Angles
    cluster: float
    touching: float
    reach: tuple[float, float] = (1.9, 2.4)
    role: Role = Role.MAIN


def scatter(
    canvas: Canvas, rng: np.random.Generator, grid: Grid, weight: NDArray[np.float64], how: Scatter, count: int
) -> int:
    """Places ``count`` nuclei, each tried at up to MAX_TRIES places, and returns how many found room.

    Args:
        weight: [rows, cols] density of places, zero where none may be.
    """
    if count <= 0 or not weight.any():
        return 0
    areas = draw_areas(rng, count, how.area_px, how.area_spread)
    aspects = draw_aspects(rng, count, how.aspect_ratio)
    gaps = (rng.random(count) >= how.touching).astype(int) * rng.integers(1, 3, count)
    open_ = np.arange(count)
    places_weight, cluster, max_clip = weight, how.cluster, MAX_CLIP
    for attempt in range(MAX_TRIES):
        failed = []
        if attempt >= RANDOM_TRIES:
            places_weight, cluster = weight * gap_weight(canvas.taken, grid), 0.0
            if not places_weight.any():
                break
        if attempt == MARGIN_TRIES:
            gaps[:] = 0
            max_clip = LATE_MAX_CLIP
        # The first pass goes in small groups, so that clusters can grow on what earlier groups placed.
        for group in np.array_split(open_, max(1, min(16, len(open_) // 8)) if attempt == 0 else 1):
            radius = np.sqrt(areas[group] / np.pi)
            places = _places(rng, grid, places_weight, canvas, radius, cluster, how.reach)
            angles = how.angles(places)
            polygons = how.shapes.polygons(rng, areas[group], aspects[group], angles)
            for i, polygon, place, angle in zip(group.tolist(), polygons, places.tolist(), angles, strict=True):
                added = canvas.add(
                    polygon, (place[0], place[1]), float(angle), role=how.role, gap_px=int(gaps[i]), max_clip=max_clip
                )
                if not added:
                    failed.append(i)
        open_ = np.array(failed, dtype=int)
        if not failed:
            break
    return count - len(open_)


def gap_weight(taken: NDArray[np.generic], grid: Grid) -> NDArray[np.float64]:
    """Weight of places [rows, cols] by the fourth power of their distance from any nucleus, zero outside the map.

    Args:
        taken: [H, W], zero where no nucleus is: an instance map, or a mask of nuclei.
    """
    distance = cv2.distanceTransform((taken == 0).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
    near, inside = grid.from_map(distance)
    return np.where(inside, near.astype(np.float64) ** 4, 0.0)


def _places(
    rng: np.random.Generator,
    grid: Grid,
    weight: NDArray[np.float64],
    canvas: Canvas,
    radius: NDArray[np.float64],
    cluster: float,
    reach_range: tuple[float, float],
) -> NDArray[np.float64]:
    """[n, 2] places; some of them beside a nucleus that is there."""
    n = len(radius)
    places = grid.draw_points(rng, weight, n)
    beside = rng.random(n) < cluster
    angle, reach = rng.random(n) * 2 * np.pi, rng.uniform(*reach_range, n)
    if canvas.count and beside.any():
        partner = np.array(canvas.centres)[rng.integers(0, canvas.count, n)]
        near = partner + (reach * radius)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        inside = grid.sample(weight, near) > 0
        places = np.where((beside & inside)[:, None], near, places)
    return places


def local_angles(rng: np.random.Generator, grid: Grid, wavelength_px: float) -> Angles:
    """Long axes in any direction, those of neighbours somewhat alike, as in real round tiles."""
    turn = np.pi * (rng.random() + 0.5 * smooth_noise(rng, grid, wavelength_px))
    return lambda points: grid.sample(turn, points) + LOCAL_JITTER * rng.standard_normal(len(points))


def draw_round(scene: Scene) -> None:
    """Scattered (crowding 0) to clustered and crowded (1) round and oval nuclei."""
    request, rng = scene.request, scene.rng
    radius = request.breadth_px / 2
    grid = Grid(request.height_px, request.width_px, max(2.0, radius / 1.5), request.length_px)
    # Real round tiles are covered to 0.15 (scattered) up to 0.40 (crowded); 1.1 is the mean area over the median.
    coverage = 0.12 + 0.26 * request.crowding
    count = request.wanted or max(1, round(request.count_at(coverage / 1.1) * scene.share))
    room = 1 - min(1.0, count / (request.count_at(0.42) * scene.share))
    weight = np.exp(1.2 * room * smooth_noise(rng, grid, 20 * radius)) * scene.open_cells(grid)
    how = Scatter(
        shapes_from_bank(scene.bank, "round"),
        request.median_area_px,
        request.log_area_spread,
        request.median_aspect_ratio,
        local_angles(rng, grid, 50 * radius),
        cluster=0.15 + 0.55 * request.crowding,
        touching=0.3 + 0.65 * request.crowding,
    )
    scatter(scene.canvas, rng, grid, weight, how, count)

"""Rows of nuclei side by side around a lumen, and the stroma on their basal side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.layouts.canvas import Role
from msdm_engine.layouts.fields import Grid, smooth_noise
from msdm_engine.layouts.lumen import Line, lines_at
from msdm_engine.layouts.outlines import Shapes, shapes_from_bank
from msdm_engine.layouts.request import LayoutRequest
from msdm_engine.layouts.scatter import Scatter, scatter
from msdm_engine.layouts.scene import Scene
from msdm_engine.layouts.sizes import draw_areas, draw_aspects

#: Standard deviation of a palisade nucleus against the direction across the palisade.
ANGLE_JITTER = math.radians(12)

#: Share of places in a palisade that stay empty: nuclei out of the plane of the section.
EMPTY_SHARE = 0.04

#: Stroma nuclei: smaller, less elongated, loosely along the basal side.
STROMA_AREA, STROMA_ASPECT, STROMA_JITTER = 0.8, 1.8, math.radians(45)

#: Where a palisade nucleus that finds no room is tried again: lengths outward, breadths along, factor on its size.
RETRIES = ((0.0, 0.0, 1.0), (0.22, 0.0, 1.0), (-0.18, 0.0, 1.0), (0.1, 0.3, 1.0), (0.1, -0.3, 1.0), (0.4, 0.0, 0.92))

#: Sizes are stratified in blocks of so many neighbours, so that any stretch of a palisade has the median asked for.
BLOCK = 16


@dataclass(frozen=True)
class Palisade:
    """Geometry of one epithelium, in units of a nucleus's length.

    Args:
        rows: of nuclei.
        apical: free cytoplasm between lumen and nuclei.
        pitch: distance between rows; below 1 they interlock (pseudostratified).
        depth_jitter: standard deviation of a nucleus against its row.
    """

    rows: int
    apical: float
    pitch: float
    depth_jitter: float

    @property
    def thickness(self) -> float:
        """From the lumen to the basal side."""
        return self.apical + 1 + (self.rows - 1) * self.pitch


def draw_palisades(scene: Scene, grid: Grid, palisade: Palisade, distance: NDArray[np.float32]) -> None:
    """Draws the rows from the lumen outward, and stops at the number of nuclei asked for.

    Args:
        distance: [rows, cols] float32 pixels from the lumen.
    """
    shapes = shapes_from_bank(scene.bank, "columnar")
    length = scene.request.length_px
    for row in range(palisade.rows):
        level = (palisade.apical + 0.5 + row * palisade.pitch) * length
        for line in lines_at(distance, grid, level, 0.4 * length):
            _draw_row(scene, palisade, line, shapes)


def _draw_row(scene: Scene, palisade: Palisade, line: Line, shapes: Shapes) -> None:
    request, rng = scene.request, scene.rng
    along, areas, aspects = _walk(request, rng, palisade.rows, float(line.along[-1]))
    n, length = len(along), request.length_px
    at = np.searchsorted(line.along, along).clip(0, len(line.points) - 1)
    depth = palisade.depth_jitter * length * rng.standard_normal(n)
    across = line.outward[at]
    normal = np.stack([np.cos(across), np.sin(across)], axis=1)
    centres = line.points[at] + depth[:, None] * normal
    angles = across + ANGLE_JITTER * rng.standard_normal(n)
    gaps = (rng.random(n) >= 0.4 + 0.55 * request.crowding).astype(int)
    size = np.array([request.width_px, request.height_px])
    outwardness = scene.outwardness(centres)
    visible = ((centres > -length) & (centres < size + length)).all(axis=1) & (rng.random(n) >= EMPTY_SHARE)
    chosen = np.flatnonzero(visible & np.isfinite(outwardness))
    if request.wanted is not None:
        # Where nuclei are left out, they are left out towards the borders.
        chosen = chosen[np.argsort(outwardness[chosen], kind="stable")]
    polygons = shapes.polygons(rng, areas[chosen], aspects[chosen], angles[chosen])
    for i, polygon in zip(chosen.tolist(), polygons, strict=True):
        if request.wanted is not None and scene.canvas.count >= request.wanted:
            return
        for outward, sideways, factor in RETRIES:
            move = outward * length * normal[i] + sideways * request.breadth_px * normal[i, ::-1] * (-1, 1)
            x, y = (centres[i] + move).tolist()
            if scene.canvas.add(
                factor * polygon, (x, y), float(angles[i]), across=float(across[i]), gap_px=int(gaps[i])
            ):
                break


def _walk(
    request: LayoutRequest, rng: np.random.Generator, rows: int, end: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Arc lengths at which nuclei stand side by side up to ``end``, with their areas and aspect ratios."""
    blocks = 1 + math.ceil(end / (0.5 * request.breadth_px) / BLOCK)
    median, spread = request.median_area_px, request.log_area_spread
    areas = np.concatenate([draw_areas(rng, BLOCK, median, spread) for _ in range(blocks)])
    aspects = np.concatenate([draw_aspects(rng, BLOCK, request.median_aspect_ratio) for _ in range(blocks)])
    breadth = np.sqrt(4 * areas / (np.pi * aspects))
    # Nuclei of a single row stand side by side; those of several rows leave room for their staggered neighbours.
    gap = 0.4 * (1 - request.crowding) - 0.06 + (0.0 if rows == 1 else 0.3)
    factor = 1 + gap * rng.uniform(0.4, 1.6, len(areas) - 1)
    steps = (breadth[1:] + breadth[:-1]) / 2 * factor
    along = rng.random() * breadth[0] + np.concatenate([[0.0], np.cumsum(steps)])
    keep = along < end - 0.4 * request.breadth_px
    return along[keep], areas[keep], aspects[keep]


def draw_stroma(scene: Scene, grid: Grid, palisade: Palisade, distance: NDArray[np.float32]) -> None:
    """Scatters stroma nuclei behind the palisades: to the number asked for, else to the density of ``stroma``."""
    request, rng = scene.request, scene.rng
    basal = (palisade.thickness + 0.35) * request.length_px
    weight = np.where(distance > basal, np.exp(0.5 * smooth_noise(rng, grid, 6 * request.length_px)), 0.0)
    weight = weight * scene.open_cells(grid)
    density = rng.uniform(0.3, 1.0) if request.stroma is None else request.stroma
    area = STROMA_AREA * request.median_area_px
    if request.wanted is None:
        inside = int(np.ceil(grid.margin_px / grid.step_px))
        room_px = np.count_nonzero(weight[inside:-inside, inside:-inside]) * grid.step_px**2
        count = round((0.30 * density) * room_px / (1.1 * area))
    else:
        count = request.wanted - scene.canvas.count
    smooth = cv2.GaussianBlur(np.minimum(distance, 1e6), (0, 0), max(1.0, request.breadth_px / grid.step_px))
    down, right = np.gradient(smooth.astype(np.float64))
    basal_direction = np.arctan2(right, -down)
    how = Scatter(
        shapes_from_bank(scene.bank, "round"),
        area,
        request.log_area_spread,
        STROMA_ASPECT,
        lambda points: grid.sample(basal_direction, points) + STROMA_JITTER * rng.standard_normal(len(points)),
        cluster=0.3,
        touching=0.3 + 0.6 * request.crowding,
        role=Role.STROMA,
    )
    scatter(scene.canvas, rng, grid, weight, how, count)

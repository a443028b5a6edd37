"""Layouts ``columnar`` and ``gland``: palisades of nuclei around lumens, long axes across, and stroma behind them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msdm_engine.layouts.fields import Grid
from msdm_engine.layouts.lumen import Room, distance_from_lumen, open_lumens, round_lumens
from msdm_engine.layouts.palisade import Palisade, draw_palisades, draw_stroma
from msdm_engine.layouts.request import LayoutRequest
from msdm_engine.layouts.scene import Scene

#: Factor on the width of lumens, rows added and least crowding, tried in turn until as many nuclei as asked for find
#: room: a count goes before crowding. A number of rows that was asked for stays.
LADDER = ((1.0, 0, 0.0), (0.7, 0, 0.0), (0.5, 1, 0.4), (0.3, 2, 0.7), (0.15, 3, 0.9))
MAX_ROWS = 4

#: Share of columnar pictures, among those without a given orientation, whose palisade bends around a round lumen.
ROUND_LUMEN_SHARE = 0.25

#: Lumens [rows, cols] uint8 for a palisade on a grid, with a factor on their width.
Lumens = Callable[[Grid, Palisade, float], NDArray[np.uint8]]


def draw_columnar(scene: Scene) -> None:
    """Palisades along wavy bands, or around wide lumens."""
    request, rng, length = scene.request, scene.rng, scene.request.length_px
    palisade = _palisade(request, rng, (0.35, 0.4, 0.25))
    closed = request.orientation_deg is None and rng.random() < ROUND_LUMEN_SHARE
    angle = rng.random() * 2 * math.pi if request.orientation_deg is None else math.radians(request.orientation_deg)

    def lumens(grid: Grid, palisade: Palisade, scale: float) -> NDArray[np.uint8]:
        thickness = palisade.thickness * length
        if closed:
            radius = (3.0 * length * scale, 6.0 * length * scale)
            # The epithelium, not the lumen, passes near the picture's centre.
            aside = thickness / 2 + rng.uniform(-0.15, 0.15) * min(request.height_px, request.width_px)
            return round_lumens(rng, grid, radius, 6 * length, offset=(1.0, aside), lobes=0.2)
        return open_lumens(rng, grid, angle, length, thickness, scale, _room(scene, grid, thickness))

    _draw_until_wanted(scene, palisade, lumens)


def draw_gland(scene: Scene) -> None:
    """Rings of columnar nuclei around lumens, one of them whole in the middle, with stroma between."""
    request, rng, length = scene.request, scene.rng, scene.request.length_px

    def lumens(grid: Grid, palisade: Palisade, scale: float) -> NDArray[np.uint8]:
        thickness = palisade.thickness * length
        # The middle gland stays whole: its ring fits the picture, unless the nuclei are too long for that.
        fits = 0.44 * min(request.height_px, request.width_px) - thickness
        largest = scale * float(np.clip(fits, 0.8 * length, 3.5 * length))
        clearance = 2 * thickness + 0.6 * length
        radius, room = (0.5 * largest, largest), _room(scene, grid, thickness)
        return round_lumens(rng, grid, radius, clearance, offset=(0.15, 0.0), lobes=0.3, room=room)

    _draw_until_wanted(scene, _palisade(request, rng, (0.75, 0.25, 0.0)), lumens)


def _palisade(request: LayoutRequest, rng: np.random.Generator, chances: tuple[float, float, float]) -> Palisade:
    drawn = 1 + int(rng.choice(3, p=chances))
    rows = drawn if request.rows is None else request.rows
    return Palisade(rows, rng.uniform(0.2, 0.7), rng.uniform(0.62, 0.8), 0.10 if rows == 1 else 0.16)


def _room(scene: Scene, grid: Grid, thickness_px: float) -> Room | None:
    depth = scene.depth_cells(grid)
    return None if depth is None else Room(depth, thickness_px)


def _draw_until_wanted(scene: Scene, palisade: Palisade, lumens: Lumens) -> None:
    request = scene.request
    step = max(1.0, request.breadth_px / 5)
    for scale, more, crowding in LADDER:
        scene = replace(scene, request=replace(request, crowding=max(request.crowding, crowding)))
        rows = min(palisade.rows + more, MAX_ROWS) if request.rows is None else request.rows
        thicker = replace(palisade, rows=rows)
        grid = Grid(request.height_px, request.width_px, step, (thicker.thickness + 1.5) * request.length_px)
        scene.canvas.clear()
        distance = distance_from_lumen(lumens(grid, thicker, scale), grid)
        draw_palisades(scene, grid, thicker, distance)
        draw_stroma(scene, grid, thicker, distance)
        if request.wanted is None or scene.canvas.count >= request.wanted:
            return

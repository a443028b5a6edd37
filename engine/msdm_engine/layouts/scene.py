"""What every layout draws with."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.layouts.canvas import Canvas
from msdm_engine.layouts.fields import Grid
from msdm_engine.layouts.outlines import OutlineBank
from msdm_engine.layouts.request import LayoutRequest


@dataclass(frozen=True)
class Scene:
    """A request, the outlines and the random stream to draw it with, and the map it is drawn on."""

    request: LayoutRequest
    bank: OutlineBank
    rng: np.random.Generator
    canvas: Canvas

    @property
    def share(self) -> float:
        """Share of the map that the canvas's region covers; 1 without a region."""
        return 1.0 if self.canvas.region is None else float(self.canvas.region.mean())

    def open_cells(self, grid: Grid) -> float | NDArray[np.float64]:
        """1 where nuclei may lie, else 0: [rows, cols], or the number 1 without a region."""
        if self.canvas.region is None:
            return 1.0
        return grid.from_map(self.canvas.region)[0].astype(np.float64)

    def depth_cells(self, grid: Grid) -> NDArray[np.float64] | None:
        """[rows, cols] distance of the cells from the border of the region in pixels; None without a region."""
        if self.canvas.region is None:
            return None
        return grid.from_map(self._depth)[0].astype(np.float64)

    def outwardness(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n] how far towards the borders points [n, 2] (x, y) lie; infinite outside the region.

        It is the distance from the map's centre, or with a region minus the distance from the region's border.
        """
        size = np.array([self.request.width_px, self.request.height_px])
        region = self.canvas.region
        if region is None:
            return np.hypot(*(points - size / 2).T)
        x, y = np.rint(points).astype(int).clip(0, size - 1).T
        depth = self._depth[y, x].astype(np.float64)
        return np.where(depth > 0, -depth, np.inf)

    @functools.cached_property
    def _depth(self) -> NDArray[np.float32]:
        """[H, W] distance from the border of the region, which is taken to go on beyond the map."""
        region = np.ones_like(self.canvas.labels, np.uint8) if self.canvas.region is None else self.canvas.region
        return np.asarray(cv2.distanceTransform(region, cv2.DIST_L2, cv2.DIST_MASK_3), np.float32)

"""Smooth random fields on a coarse grid that covers the picture and a margin around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Grid:
    """Cells of ``step_px`` pixels; cell [0, 0] is centred on pixel (-margin_px, -margin_px).

    The margin makes nuclei at the picture's border be cut by it, as in tiles of a larger slide.
    """

    height_px: int
    width_px: int
    step_px: float
    margin_px: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, cols = (
            math.ceil((side + 2 * self.margin_px) / self.step_px) + 1 for side in (self.height_px, self.width_px)
        )
        return rows, cols

    def pixels(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x [1, cols] and y [rows, 1] of the cell centres in pixels."""
        rows, cols = self.shape
        x = np.arange(cols, dtype=np.float64) * self.step_px - self.margin_px
        y = np.arange(rows, dtype=np.float64) * self.step_px - self.margin_px
        return x[None, :], y[:, None]

    def sample(self, values: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values [rows, cols] at the nearest cell of each point [n, 2] (x, y)."""
        rows, cols = self.shape
        at = np.rint((points + self.margin_px) / self.step_px).astype(int)
        return values[np.clip(at[:, 1], 0, rows - 1), np.clip(at[:, 0], 0, cols - 1)]

    def from_map(self, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values [H, W] of the picture at each cell, repeated beyond its border, and which cells lie inside it."""
        x, y = self.pixels()
        column, row = np.rint(x[0]).astype(int), np.rint(y[:, 0]).astype(int)
        inside = ((row >= 0) & (row < self.height_px))[:, None] & ((column >= 0) & (column < self.width_px))
        return values[row.clip(0, self.height_px - 1)[:, None], column.clip(0, self.width_px - 1)], inside

    def draw_points(self, rng: np.random.Generator, weight: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        """[n, 2] points (x, y) in pixels with a density proportional to ``weight`` [rows, cols]."""
        cumulative = np.cumsum(weight.ravel())
        cell = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right")
        cell = np.minimum(cell, weight.size - 1)
        at = np.stack([cell % weight.shape[1], cell // weight.shape[1]], axis=1) + rng.random((n, 2)) - 0.5
        return at * self.step_px - self.margin_px


def smooth_noise(rng: np.random.Generator, grid: Grid, wavelength_px: float) -> NDArray[np.float64]:
    """Random field [rows, cols] of mean 0 and standard deviation about 1 that varies over ``wavelength_px``."""
    rows, cols = grid.shape
    knots = max(wavelength_px / 2 / grid.step_px, 1.0)
    # Four knots more than needed, cut off again: cubic interpolation repeats its border.
    small = rng.standard_normal((math.ceil(rows / knots) + 5, math.ceil(cols / knots) + 5))
    size = (round(small.shape[1] * knots), round(small.shape[0] * knots))
    large = cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)
    y, x = (large.shape[0] - rows) // 2, (large.shape[1] - cols) // 2
    # Interpolation between independent knots averages them: 0.76 is the mean of its standard deviation.
    return np.asarray(large[y : y + rows, x : x + cols] / 0.76, np.float64)


def stream_function(
    rng: np.random.Generator, grid: Grid, angle: float, wavelength_px: float, bend: float
) -> NDArray[np.float64]:
    """Distance across a flow along ``angle`` [rows, cols], in pixels; its level lines are the flow's lines.

    Args:
        angle: radians, mean direction of the flow.
        wavelength_px: over which the flow bends.
        bend: typical slope of a line against the mean direction; 0 is straight.
    """
    x, y = grid.pixels()
    across = y * math.cos(angle) - x * math.sin(angle)
    # A wave of this wavelength and of amplitude s has the typical slope 2 pi s / (sqrt(2) wavelength).
    amplitude = bend * wavelength_px / (math.sqrt(2) * math.pi)
    return across + amplitude * smooth_noise(rng, grid, wavelength_px)


def flow_angle(stream: NDArray[np.float64]) -> NDArray[np.float64]:
    """Direction of the level lines of a stream function, radians [rows, cols]."""
    down, right = np.gradient(stream)
    return np.arctan2(-right, down)

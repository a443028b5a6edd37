"""Lumens: the empty spaces that an epithelium lines, as a mask on a grid; and the lines at a distance from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.layouts.fields import Grid, smooth_noise, stream_function


@dataclass(frozen=True)
class Line:
    """A line that runs at one distance around a lumen, sampled about every grid step.

    Args:
        points: [n, 2] float64 (x, y) in pixels; the line is closed.
        outward: [n] radians, away from the lumen.
        along: [n] float64, arc length from the first point in pixels.
    """

    points: NDArray[np.float64]
    outward: NDArray[np.float64]
    along: NDArray[np.float64]


@dataclass(frozen=True)
class Room:
    """Where lumens may lie.

    Args:
        depth_px: [rows, cols] distance from the border of the region, 0 outside of it.
        ring_px: thickness of the epithelium around a lumen.
    """

    depth_px: NDArray[np.float64]
    ring_px: float

    def widest(self, grid: Grid) -> tuple[NDArray[np.float64], float]:
        """The point (x, y) in pixels farthest from the borders of region and picture, and that distance."""
        x, y = grid.pixels()
        border = np.minimum(np.minimum(x, grid.width_px - 1 - x), np.minimum(y, grid.height_px - 1 - y))
        free = np.minimum(self.depth_px, border)
        row, column = divmod(int(np.argmax(free)), free.shape[1])
        return np.array([x[0, column], y[row, 0]]), float(free[row, column])


def open_lumens(
    rng: np.random.Generator,
    grid: Grid,
    angle: float,
    length_px: float,
    thickness_px: float,
    scale: float,
    room: Room | None = None,
) -> NDArray[np.uint8]:
    """Lumens as wavy bands along ``angle``, with tissue between them; an epithelium passes near the centre.

    Args:
        length_px: length of a columnar nucleus, the unit of all widths.
        thickness_px: of the epithelium.
        scale: factor on the width of lumens; less gives more tissue.
        room: its widest point takes the place of the picture's centre.

    Returns:
        [rows, cols] uint8, 1 in lumens.
    """
    stream = stream_function(rng, grid, angle, rng.uniform(12, 24) * length_px, bend=rng.uniform(0.05, 0.35))
    # A shorter wave in both directions, so that no two borders run alike.
    stream = stream + rng.uniform(0.2, 0.8) * length_px * smooth_noise(rng, grid, 9 * length_px)
    # Tissue lies on the upper side of the border in the middle, so the epithelium's midline is at ``near``.
    near = min(grid.height_px, grid.width_px) * rng.uniform(-0.2, 0.2) - thickness_px / 2
    middle = np.array([grid.width_px / 2, grid.height_px / 2]) if room is None else room.widest(grid)[0]
    centre = grid.sample(stream, middle[None])[0] + near
    borders = [centre]
    while borders[-1] < stream.max():
        widths = (rng.uniform(7, 13), scale * rng.uniform(3.5, 7.5))
        borders += [borders[-1] + widths[0] * length_px, borders[-1] + sum(widths) * length_px]
    while borders[0] > stream.min():
        widths = (scale * rng.uniform(3.5, 7.5), rng.uniform(7, 13))
        borders = [borders[0] - sum(widths) * length_px, borders[0] - widths[0] * length_px, *borders]
    position = np.searchsorted(np.array(borders), stream)
    return (position % 2 == borders.index(centre) % 2).astype(np.uint8)


def round_lumens(
    rng: np.random.Generator,
    grid: Grid,
    radius_px: tuple[float, float],
    clearance_px: float,
    offset: tuple[float, float],
    lobes: float,
    room: Room | None = None,
) -> NDArray[np.uint8]:
    """Star-shaped lumens, the first one near the centre, others wherever ``clearance_px`` of tissue stays between.

    Args:
        radius_px: smallest and largest mean radius.
        clearance_px: least distance between two lumens.
        offset: distance of the first lumen's centre from the picture's centre: factor on its radius, plus pixels.
        lobes: relative depth of the lobes of the outline; 0 is a circle.
        room: keeps the rings around lumens inside a region; the first one lies where it is widest, as small as need
            be and legal.

    Returns:
        [rows, cols] uint8, 1 in lumens.
    """
    mask = np.zeros(grid.shape, np.uint8)
    x_range = (-grid.margin_px, grid.width_px + grid.margin_px)
    y_range = (-grid.margin_px, grid.height_px + grid.margin_px)
    centres, radii = np.empty((0, 2)), np.empty(0)
    area = (x_range[1] - x_range[0]) * (y_range[1] - y_range[0])
    tries = math.ceil(12 * area / (2 * radius_px[0] + clearance_px) ** 2)
    for attempt in range(tries):
        radius = rng.uniform(*radius_px)
        place = np.array([rng.uniform(*x_range), rng.uniform(*y_range)])
        if attempt == 0:
            turn, away = rng.random() * 2 * np.pi, offset[0] * radius + offset[1]
            place = np.array([grid.width_px / 2, grid.height_px / 2])
            place += away * np.array([math.cos(turn), math.sin(turn)])
        if room is not None:
            if attempt == 0:
                place, widest = room.widest(grid)
                radius = float(np.clip((widest - room.ring_px) / (1 + lobes / 2), radius_px[0], radius))
            elif grid.sample(room.depth_px, place[None])[0] < (1 + lobes / 2) * radius + room.ring_px:
                continue
        reach = (1 + lobes / 2) * (radii + radius) + clearance_px
        if (np.hypot(*(centres - place).T) < reach).any():
            continue
        centres, radii = np.vstack([centres, place]), np.append(radii, radius)
        outline = place + _star(rng, radius, lobes)
        at = np.rint((outline + grid.margin_px) / grid.step_px * 16).astype(np.int32)
        cv2.fillPoly(mask, [at], 1, lineType=cv2.LINE_8, shift=4)
    return mask


def _star(rng: np.random.Generator, radius: float, lobes: float) -> NDArray[np.float64]:
    """[96, 2] closed outline around the origin: a circle with harmonics 2 to 5 of falling amplitude."""
    turn = np.arange(96) / 96 * 2 * np.pi
    order = np.arange(2, 6)
    amplitude = lobes * rng.uniform(0.2, 1.0, 4) * np.array([0.9, 0.45, 0.3, 0.2])
    wave = amplitude @ np.cos(order[:, None] * turn + rng.random((4, 1)) * 2 * np.pi)
    reach = radius * (1 + wave)
    return np.stack([reach * np.cos(turn), reach * np.sin(turn)], axis=1)


def distance_from_lumen(lumen: NDArray[np.uint8], grid: Grid) -> NDArray[np.float32]:
    """Distance to the nearest lumen in pixels, [rows, cols] float32, 0 inside; infinite where there is none."""
    if not lumen.any():
        return np.full(lumen.shape, np.inf, np.float32)
    distance = cv2.distanceTransform(1 - lumen, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return (distance * np.float32(grid.step_px)).astype(np.float32)


def lines_at(distance: NDArray[np.float32], grid: Grid, level_px: float, smooth_px: float) -> list[Line]:
    """The closed lines where ``distance`` passes ``level_px``, and the grid's border where tissue reaches it.

    The grid's margin keeps what stands along its border out of view.

    Args:
        smooth_px: standard deviation along the line of the Gaussian that rounds off kinks and grid steps.
    """
    beyond = (distance > level_px).view(np.uint8)
    contours, _ = cv2.findContours(beyond, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    sigma = max(smooth_px / grid.step_px, 1.0)
    lines = []
    for contour in contours:
        points = contour[:, 0].astype(np.float64)
        if len(points) < 6 * sigma:
            continue
        points = _smooth_closed(points, sigma)
        outward = _outward(points, distance)
        step = np.hypot(*np.diff(points, axis=0).T) * grid.step_px
        along = np.concatenate([[0.0], np.cumsum(step)])
        lines.append(Line(points * grid.step_px - grid.margin_px, outward, along))
    return lines


def _outward(points: NDArray[np.float64], distance: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n] radians, across the line and away from the lumen."""
    tangent = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.maximum(np.hypot(normal[:, :1], normal[:, 1:]), 1e-9)
    last = np.array(distance.shape[::-1]) - 1
    sides = [np.clip(np.rint(points + 2 * sign * normal), 0, last).astype(int) for sign in (1, -1)]
    plus, minus = (distance[at[:, 1], at[:, 0]].sum(dtype=np.float64) for at in sides)
    return np.arctan2(normal[:, 1], normal[:, 0]) + (0.0 if plus > minus else np.pi)


def _smooth_closed(points: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian along a closed line [n, 2]; sigma in points."""
    reach = min(math.ceil(3 * sigma), len(points) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.concatenate([points[-reach:], points, points[:reach]])
    return np.stack([np.convolve(padded[:, axis], kernel, mode="valid") for axis in (0, 1)], axis=1)

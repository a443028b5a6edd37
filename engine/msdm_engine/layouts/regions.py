"""Regions of a mixture: the plane cut smoothly by area, or read from a drawn label image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import InputError
from msdm_engine.inputs.masks import read_instances
from msdm_engine.layouts.fields import Grid, smooth_noise

#: Cells of the coarse grid along the shorter side; the border is interpolated between them.
CELLS = 96

#: Slope of the plane added to the noise, in standard deviations from edge to edge of the map. It keeps a region in
#: one or two pieces without making its border straight.
TILT = 3.0

#: Wavelength of the noise over the map's shorter side.
WAVELENGTH = 0.9


def cut_by_area(rng: np.random.Generator, height_px: int, width_px: int, shares: Sequence[float]) -> NDArray[np.uint8]:
    """Cuts the plane along level lines of smooth noise, so that part k covers ``shares[k]`` of it to the pixel.

    Each part is cut off what the parts before it left, along a line of its own direction.

    Args:
        shares: of the plane, together 1.

    Returns:
        [height_px, width_px] uint8, k + 1 in part k.
    """
    regions = np.full(height_px * width_px, len(shares), np.uint8)
    left = np.arange(regions.size)
    ends = np.rint(np.cumsum(shares) * regions.size).astype(int)
    for number, size in enumerate(np.diff(ends[:-1], prepend=0).tolist(), start=1):
        field = _tilted_noise(rng, height_px, width_px).ravel()[left]
        # The `size` highest values; a stable order decides between equal ones.
        order = np.argpartition(-field, size - 1)[:size] if size else np.empty(0, int)
        regions[left[order]] = number
        left = np.delete(left, order)
    return regions.reshape(height_px, width_px)


def _tilted_noise(rng: np.random.Generator, height_px: int, width_px: int) -> NDArray[np.float32]:
    """[height_px, width_px] smooth noise with a slope in a random direction."""
    side = min(height_px, width_px)
    grid = Grid(height_px, width_px, max(1.0, side / CELLS), 0.0)
    turn = rng.random() * 2 * math.pi
    x, y = grid.pixels()
    slope = (x / width_px - 0.5) * math.cos(turn) + (y / height_px - 0.5) * math.sin(turn)
    field = (smooth_noise(rng, grid, WAVELENGTH * side) + TILT * slope).astype(np.float32)
    # Cell [0, 0] is centred on pixel (0, 0).
    column, row = (np.arange(n, dtype=np.float32) / np.float32(grid.step_px) for n in (width_px, height_px))
    at = np.meshgrid(column, row)
    large = cv2.remap(field, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(large, np.float32)


def read_regions(path: Path) -> NDArray[np.uint8]:
    """Reads drawn regions as they are numbered in the file.

    Args:
        path: PNG or TIFF with one channel of 8 or 16 bits, values 0 to 255.

    Raises:
        InputError: as :func:`msdm_engine.inputs.masks.read_instances`, another type, or a value above 255.
    """
    read_instances(path)  # refuses what is damaged, too large, coloured or no label image
    values = None if path.suffix.lower() == ".npy" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype not in (np.uint8, np.uint16) or values.max() > 255:
        raise InputError(
            f"regions {path} cannot be used",
            note="PNG or TIFF with one channel of 8 or 16 bits; its values 1 to 255 name layouts, 0 stays empty",
        )
    return values.astype(np.uint8)

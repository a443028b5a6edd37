"""Pictures of instance maps: each nucleus in a colour of its own."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.output.contact_sheet import draw_outlines

#: Hues differ by this share of the circle from label to label: the golden ratio spreads any number of them.
HUE_STEP = 0.6180339887498949

#: Hues of part k of a mixture lie in this share of the circle around k times HUE_STEP.
PART_HUES = 0.16

BACKGROUND_RGB, OUTLINE_RGB = (246, 244, 240), (38, 34, 48)
GAP_PX = 8


def colour_coded(labels: NDArray[np.integer], part_of: NDArray[np.integer] | None = None) -> NDArray[np.uint8]:
    """Colours an instance map, dark lines around the nuclei.

    Args:
        labels: [H, W] instance map, labels 1..n.
        part_of: [n] part of a mixture that each nucleus belongs to, from 1: parts get hues of their own. None gives
            every nucleus any hue.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    n = int(labels.max())
    number = np.arange(1, n + 1)
    hue = (number * HUE_STEP) % 1
    if part_of is not None:
        hue = (0.58 + (part_of.astype(np.float64) - 1) * HUE_STEP + PART_HUES * (hue - 0.5)) % 1
    hsv = np.empty((1, n, 3), np.uint8)
    hsv[0, :, 0] = hue * 179
    hsv[0, :, 1] = 105 + 45 * (number % 3)
    hsv[0, :, 2] = 225 - 25 * (number % 4)
    palette = np.empty((n + 1, 3), np.uint8)
    palette[0] = BACKGROUND_RGB
    if n:
        palette[1:] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]
    return draw_outlines(palette[labels], labels, OUTLINE_RGB)


class MapSheet:
    """Collects coloured thumbnails of the first maps of a set.

    Args:
        limit: maps on the sheet.
        thumbnail_px: longest side of a thumbnail; larger maps are reduced to it, smaller ones stay as they are.
    """

    def __init__(self, limit: int = 16, columns: int = 4, thumbnail_px: int = 256) -> None:
        self.limit, self.columns, self.side = limit, columns, thumbnail_px
        self._cells: list[NDArray[np.uint8]] = []

    def add(self, labels: NDArray[np.integer], part_of: NDArray[np.integer] | None = None) -> None:
        """Adds a map while there is room."""
        if len(self._cells) >= self.limit:
            return
        scale = min(1.0, self.side / max(labels.shape))
        size = (max(1, round(labels.shape[1] * scale)), max(1, round(labels.shape[0] * scale)))
        small = cv2.resize(colour_coded(labels, part_of), size, interpolation=cv2.INTER_AREA)
        self._cells.append(np.asarray(small, np.uint8))

    def draw(self) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB: the thumbnails in rows; needs one map at least."""
        height, width = (max(cell.shape[axis] for cell in self._cells) for axis in (0, 1))
        columns = min(self.columns, len(self._cells))
        rows = -(-len(self._cells) // columns)
        sheet = np.full((rows * (height + GAP_PX) + GAP_PX, columns * (width + GAP_PX) + GAP_PX, 3), 255, np.uint8)
        for i, cell in enumerate(self._cells):
            y, x = GAP_PX + i // columns * (height + GAP_PX), GAP_PX + i % columns * (width + GAP_PX)
            sheet[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
        return sheet

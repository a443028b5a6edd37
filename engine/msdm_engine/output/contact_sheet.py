"""The contact sheet: each picture beside itself with the outlines of its mask."""

from __future__ import annotations

import cv2
import numpy as np

OUTLINE_RGB = (255, 214, 10)
GAP_PX, BETWEEN_PAIRS_PX = 2, 10


def draw_outlines(image: np.ndarray, instances: np.ndarray, colour: tuple[int, int, int] = OUTLINE_RGB) -> np.ndarray:
    """Draws the boundary of each nucleus, one pixel wide and inside it.

    Args:
        image: [H, W, 3] uint8 RGB; not changed.
        instances: [H, W] integer instance map.
    """
    labels = instances.astype(np.int32)
    boundary = np.zeros(labels.shape, bool)
    # A nuclear pixel is boundary where a 4-neighbour has another label: touching nuclei stay apart.
    for axis in (0, 1):
        different = np.diff(labels, axis=axis) != 0
        before = [slice(None), slice(None)]
        after = [slice(None), slice(None)]
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        boundary[tuple(before)] |= different
        boundary[tuple(after)] |= different
    out = image.copy()
    out[boundary & (labels > 0)] = colour
    return out


class ContactSheet:
    """Collects thumbnails of the first pairs of a set.

    Args:
        limit: pairs on the sheet.
        thumbnail_px: longest side of a thumbnail; smaller pictures are enlarged to it.
    """

    def __init__(self, limit: int = 16, columns: int = 4, thumbnail_px: int = 192) -> None:
        self.limit, self.columns, self.side = limit, columns, thumbnail_px
        self._cells: list[np.ndarray] = []

    def add(self, image: np.ndarray, instances: np.ndarray) -> None:
        """Adds a pair while there is room."""
        if len(self._cells) >= self.limit:
            return
        self._cells.append(np.concatenate([self._thumbnail(image), self._gap(), self._outlined(image, instances)], 1))

    def _gap(self) -> np.ndarray:
        return np.full((self.side, GAP_PX, 3), 255, np.uint8)

    def _outlined(self, image: np.ndarray, instances: np.ndarray) -> np.ndarray:
        # Outlines are drawn after scaling, so that they stay one crisp line.
        return draw_outlines(self._thumbnail(image), self._fit(instances, cv2.INTER_NEAREST))

    def _thumbnail(self, image: np.ndarray) -> np.ndarray:
        shrinks = max(image.shape[:2]) > self.side
        return self._fit(image, cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)

    def _fit(self, array: np.ndarray, interpolation: int) -> np.ndarray:
        height, width = array.shape[:2]
        scale = self.side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        scaled = cv2.resize(array, size, interpolation=interpolation)
        canvas = np.full((self.side, self.side, *array.shape[2:]), 255 if array.ndim == 3 else 0, array.dtype)
        canvas[: size[1], : size[0]] = scaled
        return canvas

    def draw(self) -> np.ndarray:
        """[H, W, 3] uint8: rows of pairs, picture on the left, outlines on the right."""
        height, width = self._cells[0].shape[:2]
        columns = min(self.columns, len(self._cells))
        rows = -(-len(self._cells) // columns)
        step_y, step_x = height + BETWEEN_PAIRS_PX, width + BETWEEN_PAIRS_PX
        sheet = np.full((rows * step_y + BETWEEN_PAIRS_PX, columns * step_x + BETWEEN_PAIRS_PX, 3), 255, np.uint8)
        for i, cell in enumerate(self._cells):
            y, x = BETWEEN_PAIRS_PX + i // columns * step_y, BETWEEN_PAIRS_PX + i % columns * step_x
            sheet[y : y + height, x : x + width] = cell
        return sheet

"""Sizes of pictures that are no multiple of a graph's stride."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Padding:
    """A size grown to a multiple of the stride; pictures are cropped back to (height, width)."""

    height: int
    width: int
    rows: int
    columns: int

    @staticmethod
    def of(height: int, width: int, stride: int) -> Padding:
        """Pads at the bottom and at the right."""
        return Padding(height, width, -height % stride, -width % stride)

    def grow(self, instances: np.ndarray) -> np.ndarray:
        """Continues an instance map by reflection: [H, W] -> [H + rows, W + columns] int32.

        A reflected nucleus gets a label of its own: one label on both sides would move the centre of mass of the
        nucleus inside the picture.
        """
        grown = np.pad(instances.astype(np.int32), ((0, self.rows), (0, self.columns)), mode="symmetric")
        outside = np.ones(grown.shape, bool)
        outside[: self.height, : self.width] = False
        grown[outside & (grown > 0)] += int(instances.max())
        return grown

    def grow_pictures(self, pictures: np.ndarray) -> np.ndarray:
        """Continues pictures by reflection: [B, H, W, 3] -> [B, H + rows, W + columns, 3]."""
        return np.pad(pictures, ((0, 0), (0, self.rows), (0, self.columns), (0, 0)), mode="symmetric")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width that the graphs see."""
        return self.height + self.rows, self.width + self.columns

"""Colour condition: mean and standard deviation of RGB over foreground and over background pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdm_engine.contract import COLOUR_FEATURES
from msdm_engine.errors import RequestError

RGB = tuple[float, float, float]

#: half of the 8-bit range: value v in 0..255 is v / HALF_RANGE - 1 in [-1, 1]
HALF_RANGE = 127.5


@dataclass(frozen=True)
class RegionColour:
    """Colour of one region: ``mean`` and ``std`` of R, G, B in 8-bit units (0 to 255)."""

    mean: RGB
    std: RGB

    def __post_init__(self) -> None:
        for name, values, high in (("mean", self.mean, 255.0), ("std", self.std, 127.5)):
            if len(values) != 3 or not all(np.isfinite(v) and 0 <= v <= high for v in values):
                raise RequestError(
                    f"colour {name} {tuple(values)} is not legal",
                    note=f"three finite numbers (red, green, blue) from 0 to {high:g}",
                )

    def features(self) -> np.ndarray:
        """[6] float32: the mean in [-1, 1], then the standard deviation in the same unit (0 to 1)."""
        mean = np.asarray(self.mean) / HALF_RANGE - 1.0
        return np.concatenate([mean, np.asarray(self.std) / HALF_RANGE]).astype(np.float32)


@dataclass(frozen=True)
class Colour:
    """Colour of a picture; a region that is None is left to the model."""

    foreground: RegionColour | None = None
    background: RegionColour | None = None

    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """The condition: ([12] float32 features, [2] float32 presence); an absent region is all zero."""
        features = np.zeros(COLOUR_FEATURES, np.float32)
        present = np.zeros(2, np.float32)
        for i, region in enumerate((self.foreground, self.background)):
            if region is not None:
                features[6 * i : 6 * i + 6] = region.features()
                present[i] = 1.0
        return features, present


def _region(pixels: np.ndarray) -> RegionColour | None:
    if len(pixels) == 0:
        return None
    pixels = pixels.astype(np.float64)
    mean, std = pixels.mean(0), pixels.std(0)
    return RegionColour((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def colour_from_image(image: np.ndarray, instances: np.ndarray) -> Colour:
    """Colour statistics of a picture with its mask.

    Args:
        image: [H, W, 3] uint8 RGB.
        instances: [H, W] integer instance map, 0 is background.

    Returns:
        the statistics; a region without pixels is None.
    """
    foreground = instances > 0
    return Colour(_region(image[foreground]), _region(image[~foreground]))

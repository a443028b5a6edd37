"""Batches of a segmenter's training as a pure function of (seed, step)."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.errors import InputError
from msdm_train.data.batches import Augment, scale_optical_density
from msdm_train.segmentation.config import SegmenterConfig
from msdm_train.segmentation.sources import Picture, Source

#: Wider than the generator's, which must not learn colours that no stain has: a segmenter is to see through them.
CLASSICAL = Augment(scale_probability=0.5, scale_max=1.3, stain_probability=0.7, stain_strength=0.25)


class Batches:
    """Draws and augments crops.

    Raises:
        InputError: the source has pictures smaller than a crop, which would have to be invented or blown up.
    """

    def __init__(self, source: Source, config: SegmenterConfig) -> None:
        if source.smallest_px < config.crop_px:
            raise InputError(
                f"crops of {config.crop_px} px from pictures of {source.smallest_px} px",
                hint=f"choose crops of at most {source.smallest_px} px",
            )
        self._source, self._config = source, config

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Pictures and target maps of step 1, 2, ...: each [B, 3, S, S] float32 in [-1, 1]."""
        rng = np.random.Generator(np.random.Philox(key=[self._config.seed, step]))
        crops = [self._crop(rng) for _ in range(self._config.batch)]
        maps = np.stack([maps_from_instances(instances) for _, instances in crops])
        return pixels_from_images([image for image, _ in crops]), torch.from_numpy(maps)

    def _crop(self, rng: np.random.Generator) -> Picture:
        side = self._config.crop_px
        if self._config.augmentation == "none":
            return self._source.window(rng, side)
        wanted = side
        if rng.random() < CLASSICAL.scale_probability:
            wanted = round(side * CLASSICAL.scale_max ** rng.uniform(-1, 1))
        image, instances = self._source.window(rng, wanted)
        if len(image) != side:
            shrinks = len(image) > side
            image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
            instances = cv2.resize(instances, (side, side), interpolation=cv2.INTER_NEAREST)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        image, instances = np.rot90(image, turns), np.rot90(instances, turns)
        if flip:
            image, instances = image[:, ::-1], instances[:, ::-1]
        if rng.random() < CLASSICAL.stain_probability:
            image = scale_optical_density(image, 1 + rng.uniform(-1, 1, 3) * CLASSICAL.stain_strength)
        return image, instances


def pixels_from_images(images: list[np.ndarray]) -> Tensor:
    """[H, W, 3] uint8 pictures of one size -> [N, 3, H, W] float32 in [-1, 1]."""
    stacked = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2), np.float32)
    return torch.from_numpy(stacked / np.float32(127.5) - 1)

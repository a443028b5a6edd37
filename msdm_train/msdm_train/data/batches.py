"""Training batches as a pure function of (seed, step, rank): resuming needs no sampler state."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from msdm_engine.conditions.colour import colour_from_image
from msdm_engine.conditions.metadata import Metadata, TextTokenizer
from msdm_engine.errors import InputError
from msdm_train.data.pack import FieldInfo, Pack, state_of
from msdm_train.data.reader import Region
from msdm_train.data.text import vary


@dataclass(frozen=True)
class Augment:
    """Probabilities and ranges of the augmentations; all act before maps and conditions are computed.

    Args:
        scale_probability: share of crops that are rescaled, by a factor from 1 / ``scale_max`` to ``scale_max``.
        stain_probability: share of crops whose optical density is scaled for each channel by up to
            ``stain_strength``; the colour condition is measured afterwards, so it moves along.
    """

    scale_probability: float = 0.3
    scale_max: float = 1.2
    stain_probability: float = 0.4
    stain_strength: float = 0.12


@dataclass(frozen=True)
class ConditionDropout:
    """Probability that each condition is dropped, independently of the others."""

    morphology: float = 0.15
    colour: float = 0.15
    text: float = 0.2


Batch = dict[str, np.ndarray]


class CropSampler:
    """Draws training batches from the fields of one split.

    Fields are drawn so that each (description) group counts by the square root of its tiles: rare
    morphologies are seen more often than their area, common ones are not starved.
    """

    def __init__(
        self,
        pack: Pack,
        split: str,
        *,
        crop_px: int,
        batch: int,
        tokenizer: TextTokenizer,
        seed: int,
        augment: Augment | None = None,
        dropout: ConditionDropout | None = None,
        rank: int = 0,
    ) -> None:
        fields = pack.split(split)
        if not fields:
            raise InputError(f"the pack {pack.info.name} has no field in the split '{split}'")
        self._pack, self._tokenizer = pack, tokenizer
        self.crop_px, self.batch, self.seed, self.rank = crop_px, batch, seed, rank
        self.augment, self.dropout = augment, dropout
        self._classes = {field.id: pack.classes(field.id) for field in fields}
        self.places: list[tuple[FieldInfo, Region]] = [(f, r) for f in fields for r in f.regions]
        groups = [region.description for _, region in self.places]
        weight = np.array([1 / np.sqrt(groups.count(group)) for group in groups])
        self._cumulative = np.cumsum(weight / weight.sum())

    def __call__(self, step: int) -> Batch:
        """The batch of one step.

        Returns:
            ``state`` [B, 6 + classes, h, w], ``maps_present`` [B, 1], ``colour`` [B, 12], ``colour_present`` [B, 2]
            float32, ``token_ids`` [B, T] int64, ``token_mask`` [B, T] float32.
        """
        rng = np.random.Generator(np.random.Philox(key=[self.seed, step * 4096 + self.rank]))
        samples = [self._sample(rng) for _ in range(self.batch)]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def _sample(self, rng: np.random.Generator) -> Batch:
        image, instances, field, region = self._crop(rng)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        image, instances = np.rot90(image, turns), np.rot90(instances, turns)
        if flip:
            image, instances = image[:, ::-1], instances[:, ::-1]
        if self.augment and rng.random() < self.augment.stain_probability:
            image = scale_optical_density(image, 1 + rng.uniform(-1, 1, 3) * self.augment.stain_strength)
        description = vary(region.description, rng) if self.augment else region.description
        drop = self.dropout or ConditionDropout(0, 0, 0)
        keep = rng.random(3) >= (drop.morphology, drop.colour, drop.text)
        colour, colour_present = colour_from_image(image, instances).features()
        text = Metadata(region.assay, region.indication, description).text() if keep[2] else ""
        token_ids, token_mask = self._tokenizer.encode(text)
        return {
            "state": state_of(image, instances, self._classes[field.id], self._pack.info.n_classes).astype(np.float32),
            "maps_present": np.array([keep[0]], np.float32),
            "colour": colour * np.float32(keep[1]),
            "colour_present": colour_present * np.float32(keep[1]),
            "token_ids": token_ids,
            "token_mask": token_mask,
        }

    def _crop(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, FieldInfo, Region]:
        """A crop whose centre lies in the drawn region, resized to the crops' size."""
        field, region = self.places[int(np.searchsorted(self._cumulative, rng.random()).clip(0, len(self.places) - 1))]
        size = self.crop_px
        if self.augment and rng.random() < self.augment.scale_probability:
            size = round(size * self.augment.scale_max ** rng.uniform(-1, 1))
        y, x, size = window_place(field, region, size, rng)
        image, instances = self._pack.window(field.id, y, x, y + size, x + size)
        if size != self.crop_px:
            shape = (self.crop_px, self.crop_px)
            image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA if size > self.crop_px else cv2.INTER_CUBIC)
            instances = cv2.resize(instances, shape, interpolation=cv2.INTER_NEAREST)
        return image, instances, field, region


def window_place(field: FieldInfo, region: Region, size: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Upper left corner (y, x) and side of a square window whose centre lies in a region.

    It may reach into neighbours but never into a hole, and is smaller than ``size`` where that does not fit.
    """
    size = min(size, field.height_px, field.width_px)
    for _ in range(20):
        y = int(rng.integers(region.y0, region.y1)) - size // 2
        x = int(rng.integers(region.x0, region.x1)) - size // 2
        y, x = min(max(y, 0), field.height_px - size), min(max(x, 0), field.width_px - size)
        if covered(field.regions, y, x, size):
            return y, x, size
    # A region next to holes: a window inside the region itself.
    size = min(size, region.y1 - region.y0, region.x1 - region.x0)
    return int(rng.integers(region.y0, region.y1 - size + 1)), int(rng.integers(region.x0, region.x1 - size + 1)), size


def covered(regions: tuple[Region, ...], y: int, x: int, size: int) -> bool:
    """Whether disjoint regions cover the whole square at (y, x)."""
    area = sum(max(0, min(r.y1, y + size) - max(r.y0, y)) * max(0, min(r.x1, x + size) - max(r.x0, x)) for r in regions)
    return area == size * size


def scale_optical_density(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Beer-Lambert: scales the optical density -ln((I + 1) / 256) of each RGB channel; uint8 in, uint8 out.

    Args:
        image: [H, W, 3] uint8.
        factors: [3], 1 leaves a channel as it is.
    """
    table = 256.0 * ((np.arange(256)[:, None] + 1) / 256) ** factors[None] - 1
    return np.stack([table.clip(0, 255).round().astype(np.uint8)[image[..., c], c] for c in range(3)], -1)

"""What is asked of one pair, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from msdm_engine.conditions.colour import Colour
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.errors import RequestError


@dataclass(frozen=True)
class PairRequest:
    """Conditions of one pair.

    Args:
        index: number of the pair in its set; with ``seed`` it decides the noise.
        seed: 0 to 2^64 - 1.
        height_px, width_px: size of the pair, any number of pixels.
        instances: [height_px, width_px] uint16 instance map to follow; None: the model invents the layout
            and the mask is decoded from the maps it generates.
        colour: colour condition; absent regions are left to the model.
        metadata: text condition; empty is legal.
        morphology: where the instance map comes from, for the manifest.
    """

    index: int
    seed: int
    height_px: int
    width_px: int
    instances: np.ndarray | None = None
    colour: Colour = field(default_factory=Colour)
    metadata: Metadata = field(default_factory=Metadata)
    morphology: str = "invented"

    def __post_init__(self) -> None:
        shape = (self.height_px, self.width_px)
        if self.instances is not None and self.instances.shape != shape:
            raise RequestError(f"pair {self.index}: the mask is {self.instances.shape}, the size asked for {shape}")


@dataclass(frozen=True)
class Pair:
    """A generated pair.

    Args:
        image: [H, W, 3] uint8 RGB.
        instances: [H, W] uint16 instance map: the one asked for, or decoded where the model invented it.
    """

    request: PairRequest
    image: np.ndarray
    instances: np.ndarray

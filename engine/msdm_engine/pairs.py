"""What is asked of one pair, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from msdm_engine.conditions.colour import Colour
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.critic import Agreement, Seen
from msdm_engine.errors import RequestError
from msdm_engine.sampling.noise import MAX_ATTEMPTS

MIN_SIDE_PX, MAX_SIDE_PX = 16, 4096
#: Instance maps are 16-bit.
MAX_LABEL = 65535


@dataclass(frozen=True)
class PairRequest:
    """Conditions of one pair.

    Args:
        index: number of the pair in its set, 0 to 2^32 - 1; with ``seed`` it decides the noise.
        seed: 0 to 2^64 - 1.
        height_px, width_px: size of the pair, any number of pixels from 16 to 4096.
        instances: [height_px, width_px] instance map to follow, an integer type with labels up to 65535; None: the
            model invents the layout and the mask is decoded from the maps it generates.
        colour: colour condition; absent regions are left to the model.
        metadata: text condition; empty is legal.
        morphology: where the instance map comes from, for the manifest.
        classes: class (from 0) of each label, for a bundle with nucleus classes; None for one without.
        attempt: 0 to 255; the same conditions from other noise. 0 is the pair as it is first drawn.

    Raises:
        RequestError: a number out of range, or an instance map of another size or with illegal labels.
    """

    index: int
    seed: int
    height_px: int
    width_px: int
    instances: np.ndarray | None = None
    colour: Colour = field(default_factory=Colour)
    metadata: Metadata = field(default_factory=Metadata)
    morphology: str = "invented"
    classes: Mapping[int, int] | None = None
    attempt: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("index", 0, 2**32 - 1),
            ("seed", 0, 2**64 - 1),
            ("height_px", MIN_SIDE_PX, MAX_SIDE_PX),
            ("width_px", MIN_SIDE_PX, MAX_SIDE_PX),
            ("attempt", 0, MAX_ATTEMPTS - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise RequestError(f"pair {self.index}: {name} is {value}", note=f"a whole number from {low} to {high}")
        if self.instances is not None:
            self._check_instances(self.instances)

    def _check_instances(self, instances: np.ndarray) -> None:
        shape = (self.height_px, self.width_px)
        if instances.shape != shape:
            raise RequestError(f"pair {self.index}: the mask is {instances.shape}, the size asked for {shape}")
        if instances.dtype.kind not in "iu" or instances.min() < 0 or instances.max() > MAX_LABEL:
            raise RequestError(
                f"pair {self.index}: a mask of type {instances.dtype} with values from {instances.min()} to "
                f"{instances.max()}",
                note=f"an integer type, 0 for background, labels up to {MAX_LABEL}",
                hint="number the nuclei from 1",
            )


@dataclass(frozen=True)
class Pair:
    """A generated pair.

    Args:
        image: [H, W, 3] uint8 RGB.
        instances: [H, W] uint16 instance map: the one asked for, or decoded where the model invented it.
        seen: what the bundle's critic sees in the image; None: it was not asked.
        draws: how often the pair was drawn; see :mod:`msdm_engine.redraw`.
        accepted: whether it reached the agreement asked for; None: none was asked for.
        halved_batch: the batch that it was sampled in, where memory did not do for the one asked for: then its last
            bits may be others. None: the one asked for.
        outside_ranges: what its request leaves of the bundle's calibrated ranges, in words; empty unless it was
            checked, see :mod:`msdm_engine.requests.range_check`.
    """

    request: PairRequest
    image: np.ndarray
    instances: np.ndarray
    seen: Seen | None = None
    draws: int = 1
    accepted: bool | None = None
    halved_batch: int | None = None
    outside_ranges: tuple[str, ...] = ()

    @property
    def agreement(self) -> Agreement | None:
        """How far the critic finds this mask in this image; None without a critic. See :attr:`Seen.agreement`."""
        return None if self.seen is None else self.seen.agreement

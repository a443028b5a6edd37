"""What the critic says of a finished pair: how far an independent segmenter finds the mask in the image.

With morphology given, the generator copies the maps it is told to follow, so its own maps say nothing about its image.
The critic is a segmenter that was trained on real tiles only and is shown nothing but the finished picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msdm_engine.conditions.decode import instances_from_maps
from msdm_engine.errors import RequestError
from msdm_engine.metrics.segmentation import aggregated_jaccard, dice
from msdm_engine.sampling.noise import MAX_ATTEMPTS

DEFAULT_REDRAWS = 3
MAX_REDRAWS = MAX_ATTEMPTS - 1


@dataclass(frozen=True)
class Agreement:
    """Agreement of the critic's nuclei with the mask of a pair, 1 where they are the same.

    Args:
        dice: Dice coefficient of the foregrounds, in [0, 1]; two masks without nuclei agree.
        aji: aggregated Jaccard index (Kumar et al. 2017), which sees instances, in [0, 1].
    """

    dice: float
    aji: float


@dataclass(frozen=True)
class Acceptance:
    """When a pair is good enough.

    Args:
        at_least: Dice coefficient of what the critic sees in the image with the pair's mask, in [0, 1].
        redraws: at most so many draws after the first, 0 to 255.
    """

    at_least: float
    redraws: int = DEFAULT_REDRAWS

    def __post_init__(self) -> None:
        if not 0 <= self.at_least <= 1:  # also refuses NaN
            raise RequestError(f"an agreement of at least {self.at_least}", note="0 to 1, a Dice coefficient")
        if not 0 <= self.redraws <= MAX_REDRAWS:
            raise RequestError(f"{self.redraws} redraws", note=f"0 to {MAX_REDRAWS}")


def acceptance_of(min_agreement: float | None, max_redraws: int | None) -> Acceptance | None:
    """What flags or a request file say; redraws without an agreement are a RequestError."""
    if min_agreement is None:
        if max_redraws is not None:
            raise RequestError(
                "max_redraws goes with min_agreement", note="only pairs below an agreement are drawn again"
            )
        return None
    return Acceptance(min_agreement, DEFAULT_REDRAWS if max_redraws is None else max_redraws)


def image_from_pictures(pictures: np.ndarray) -> np.ndarray:
    """Input ``image`` of the critic: [B, H, W, 3] uint8 -> [B, 3, H, W] float32 in [-1, 1]."""
    scaled = pictures.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(scaled)


def agreement_of(maps: np.ndarray, instances: np.ndarray) -> Agreement:
    """Compares what the critic sees with the mask.

    Args:
        maps: [3, H, W] float: foreground, horizontal, vertical, as :mod:`msdm_engine.conditions.decode` takes them;
            like there, what is smaller than 10 px is no nucleus.
        instances: [H, W] integer instance map, the reference.

    Raises:
        InputError: the sizes differ, or a value is not finite.
    """
    seen = instances_from_maps(maps)
    return Agreement(float(dice(instances, seen).value), float(aggregated_jaccard(instances, seen).value))


@dataclass(frozen=True, eq=False)
class Seen:
    """What the critic sees in the image of a pair.

    Args:
        maps: [3, H, W] float32: foreground, horizontal, vertical.
        instances: [H, W] instance map of the pair.
    """

    maps: np.ndarray
    instances: np.ndarray

    @cached_property
    def agreement(self) -> Agreement:
        """Of both. Computed once, by the first who asks, as decoding takes tens of milliseconds: a thread that encodes
        the pair, or :mod:`msdm_engine.redraw` where it decides.
        """
        return agreement_of(self.maps, self.instances)

"""Settings of a segmenter and of its training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from msdm_engine.errors import RequestError, nearest

Architecture = Literal["lite0", "plain"]
Augmentation = Literal["none", "classical"]

#: Sides of the crops are multiples of this: the coarsest grid of any architecture.
STRIDE_PX = 32


@dataclass(frozen=True)
class SegmenterConfig:
    """Settings of one training; the crops come from a source, see :mod:`~msdm_train.segmentation.sources`.

    Args:
        architecture: see :mod:`~msdm_train.segmentation.network`.
        crop_px: side of the square crops; a multiple of 32.
        batch: crops a step.
        learning_rate: peak of AdamW's rate; it rises linearly over ``warmup_steps`` and then falls to zero along
            half a cosine.
        augmentation: ``none``, or ``classical``: turns, flips, scale and stain.
        save_every, log_every: steps.

    Raises:
        RequestError: an unknown name or a value out of range.
    """

    architecture: Architecture = "plain"
    steps: int = 500
    batch: int = 8
    crop_px: int = 128
    learning_rate: float = 2e-3
    warmup_steps: int = 20
    augmentation: Augmentation = "classical"
    seed: int = 0
    save_every: int = 200
    log_every: int = 20

    def __post_init__(self) -> None:
        for name, legal in (("architecture", get_args(Architecture)), ("augmentation", get_args(Augmentation))):
            if getattr(self, name) not in legal:
                raise RequestError(f"{name} '{getattr(self, name)}'", note=nearest(getattr(self, name), legal))
        for name in ("steps", "batch", "warmup_steps", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}", note="at least 1")
        if self.seed < 0:
            raise RequestError(f"seed is {self.seed}", note="at least 0")
        if self.crop_px < STRIDE_PX or self.crop_px % STRIDE_PX:
            raise RequestError(f"crop_px is {self.crop_px}", note=f"a multiple of {STRIDE_PX}")
        if not 0 < self.learning_rate < math.inf:
            raise RequestError(f"learning_rate is {self.learning_rate}", note="above 0")

    def rate(self, step: int) -> float:
        """Learning rate of step 1, 2, ..., ``steps``."""
        left = (1 + math.cos(math.pi * (step - 1) / self.steps)) / 2
        return self.learning_rate * min(step / self.warmup_steps, 1) * left

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> SegmenterConfig:
        """Inverse of :meth:`to_json`; an unknown key is a RequestError that names the nearest legal one."""
        legal = [field.name for field in fields(cls)]
        for key in raw:
            if key not in legal:
                raise RequestError(f"unknown setting '{key}' of a segmenter", note=nearest(key, legal))
        return cls(**raw)

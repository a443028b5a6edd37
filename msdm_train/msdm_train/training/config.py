"""Settings of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from msdm_engine.errors import RequestError


@dataclass(frozen=True)
class FitConfig:
    """Settings of one run.

    Args:
        steps: optimizer steps of this run.
        batch: crops a step and process.
        crop_px: side of the square crops; a multiple of the model's stride.
        learning_rate: peak of Adam's rate; warmed up over ``warmup_steps``, then falling as
            1 / sqrt(step / ``decay_after_steps``) (EDM2, equation 67), and linearly to zero over the last
            ``cooldown_share`` of the run.
        ema_gamma: see :class:`~msdm_train.training.ema.PowerEma`.
        save_every, log_every, validate_every: steps.
        mixed_precision: ``no``, ``bf16`` or ``fp16`` (accelerate).
        workers: data loading processes.
    """

    steps: int
    batch: int = 16
    crop_px: int = 64
    learning_rate: float = 1.2e-3
    warmup_steps: int = 200
    decay_after_steps: int = 3000
    cooldown_share: float = 0.15
    ema_gamma: float = 6.94
    seed: int = 0
    save_every: int = 500
    log_every: int = 20
    validate_every: int = 500
    mixed_precision: str = "no"
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "crop_px", "warmup_steps", "save_every", "log_every", "validate_every"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}", note="at least 1")
        for name in ("seed", "workers"):
            if getattr(self, name) < 0:
                raise RequestError(f"{name} is {getattr(self, name)}", note="at least 0")
        if not self.learning_rate > 0:
            raise RequestError(f"learning_rate is {self.learning_rate}", note="above 0")
        if not 0 <= self.cooldown_share <= 1:
            raise RequestError(f"cooldown_share is {self.cooldown_share}", note="0 to 1")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise RequestError(f"mixed precision '{self.mixed_precision}'", note="legal: no, bf16, fp16")

    def rate(self, step: int, done_before: int) -> float:
        """Learning rate of step 1, 2, ...; ``done_before`` steps were made by runs that this one goes on from."""
        decay = math.sqrt(max((step + done_before) / self.decay_after_steps, 1))
        left = (self.steps - step + 1) / max(self.cooldown_share * self.steps, 1)
        return self.learning_rate * min(step / self.warmup_steps, 1) * min(left, 1) / decay

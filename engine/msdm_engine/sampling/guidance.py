"""Guidance: a weighted sum of denoised estimates under different subsets of the conditions.

    D = sum_g w_g D(x, c_g),    sum_g w_g = 1

which is classifier-free guidance (Ho and Salimans 2022) for each modality on its own, inside an interval of noise
levels only (Kynkaanniemi et al. 2024). The branches are folded into the batch of one run of the denoiser; rows
outside the interval run one branch.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from msdm_engine.errors import RequestError

#: What each branch leaves out.
WITHOUT = {
    "all": frozenset[str](),
    "without text": frozenset({"text"}),
    "without colour": frozenset({"colour"}),
    "none": frozenset({"morphology", "colour", "text"}),
}
MIN_SCALE, MAX_SCALE = -0.95, 20.0


@dataclass(frozen=True)
class Guidance:
    """Strengths of guidance; all zero is none, and then one branch is run.

    D = D_all + text (D_all - D_without_text) + colour (D_all - D_without_colour) + overall (D_all - D_none)

    Args:
        text, colour, overall: -0.95 to 20; positive strengthens the condition.
        sigma_low, sigma_high: noise levels between which guidance acts, inclusive.
    """

    text: float = 0.0
    colour: float = 0.0
    overall: float = 0.0
    sigma_low: float = 0.0
    sigma_high: float = math.inf

    def __post_init__(self) -> None:
        for name in ("text", "colour", "overall"):
            value = getattr(self, name)
            if not MIN_SCALE <= value <= MAX_SCALE:  # also refuses NaN
                raise RequestError(f"guidance {name} is {value}", note=f"{MIN_SCALE:g} to {MAX_SCALE:g}; 0 is none")
        if not 0 <= self.sigma_low <= self.sigma_high:
            raise RequestError(
                f"guidance interval {self.sigma_low} to {self.sigma_high}", note="0 <= sigma_low <= sigma_high"
            )

    def branches(self) -> tuple[tuple[str, float], ...]:
        """Names (keys of :data:`WITHOUT`) and weights of the branches; ``all`` comes first, weights sum to one."""
        scales = (("without text", self.text), ("without colour", self.colour), ("none", self.overall))
        others = tuple((name, -scale) for name, scale in scales if scale != 0)
        return (("all", 1.0 - sum(weight for _, weight in others)), *others)

    def to_json(self) -> dict[str, Any]:
        """As JSON, which has no infinity: a ``sigma_high`` without end is null."""
        return {**asdict(self), "sigma_high": self.sigma_high if math.isfinite(self.sigma_high) else None}

    def acts_at(self, sigma: float) -> bool:
        """Whether this noise level lies in the interval."""
        return self.sigma_low <= sigma <= self.sigma_high


NO_GUIDANCE = Guidance()


def without(conditions: dict[str, np.ndarray], dropped: Collection[str]) -> dict[str, np.ndarray]:
    """Conditions of a guidance branch: those of the modalities in ``dropped`` become absent."""
    hidden = {"morphology": ("maps", "maps_present"), "colour": ("colour", "colour_present"), "text": ("token_mask",)}
    names = {name for modality in dropped for name in hidden[modality]}
    return {name: np.zeros_like(value) if name in names else value for name, value in conditions.items()}

"""Power-function average of weights (Karras et al. 2024, EDM2, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PowerEma:
    """Averages with beta_t = (1 - 1/t)^(gamma + 1): the average's length is a share of the run, at any time.

    ``gamma`` 6.94 is EDM2's relative length of 0.10.
    """

    def __init__(self, model: nn.Module, gamma: float = 6.94, start: dict[str, Tensor] | None = None) -> None:
        """Begins with the weights of ``model``, or with the averages ``start`` in the memory layout of ``model``."""
        self.gamma = gamma
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        for name, value in (start or {}).items():
            self.weights[name].copy_(value)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Takes in the weights after step ``step`` (1, 2, ...)."""
        beta = (1 - 1 / step) ** (self.gamma + 1)
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                self.weights[name].lerp_(value, 1 - beta)
            else:
                self.weights[name].copy_(value)

"""Power-function average of weights (Karras et al. 2024, EDM2, section 3.1), of one length or of several at once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

PREFIX = "ema."


class PowerEma:
    """Averages with beta_t = (1 - 1/t)^(gamma + 1): the average's length is a share of the run, at any time.

    ``gamma`` 6.94 is EDM2's relative length of 0.10; 16.97 is 0.05, 3.56 is 0.15.
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


def tensors_of_averages(averages: Iterable[PowerEma]) -> dict[str, Tensor]:
    """Further averages under ``ema.<gamma>/<name>``, as a checkpoint keeps them."""
    return {f"{PREFIX}{e.gamma!r}/{name}": value.cpu() for e in averages for name, value in e.weights.items()}


def averages_from_tensors(tensors: dict[str, Tensor]) -> dict[float, dict[str, Tensor]]:
    """What :func:`tensors_of_averages` wrote: weights for each gamma."""
    found: dict[float, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(PREFIX):
            gamma, name = key.removeprefix(PREFIX).split("/", 1)
            found.setdefault(float(gamma), {})[name] = value
    return found

from __future__ import annotations

import pytest
import torch
from torch import nn

from msdm_train.training.ema import PowerEma


class Weight(nn.Module):
    """One number, and a counter that has no average."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))
        self.register_buffer("seen", torch.tensor(0))

    def set(self, value: float, seen: int) -> None:
        with torch.no_grad():
            self.value.fill_(value)
        self.seen = torch.tensor(seen)


@pytest.mark.parametrize("gamma", [1.0, 6.94])
def test_weight_of_the_past_in_closed_form(gamma: float) -> None:
    """prod (1 - 1/t)^(gamma + 1) over t = k+1..T telescopes to (k / T)^(gamma + 1)."""
    model = Weight(5.0)
    ema = PowerEma(model, gamma)
    k, last = 30, 100
    for step in range(1, last + 1):
        model.set(1.0 if step <= k else 0.0, step)
        ema.update(model, step)
        if step == 1:  # beta_1 = 0: what the model began with is forgotten
            assert ema.weights["value"].item() == 1.0
    # A hundred float32 products round by 2^-24 each.
    assert ema.weights["value"].item() == pytest.approx((k / last) ** (gamma + 1), rel=1e-5)
    assert ema.weights["seen"].item() == last


def test_a_constant_stays() -> None:
    model = Weight(0.3)
    ema = PowerEma(model)
    for step in range(1, 20):
        ema.update(model, step)
    assert torch.equal(ema.weights["value"], model.value.detach())


def test_it_goes_on_from_given_averages_in_the_layout_of_the_model() -> None:
    model = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    start = {"weight": torch.rand(4, 4, 3, 3), "bias": torch.rand(4)}
    ema = PowerEma(model, start=start)
    assert torch.equal(ema.weights["weight"], start["weight"])
    assert ema.weights["weight"].stride() == model.weight.stride() != start["weight"].stride()
    assert ema.weights["weight"].data_ptr() != start["weight"].data_ptr()

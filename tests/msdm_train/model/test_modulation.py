from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from msdm_train.model.modulation import modulated, normed


def inputs(film: bool, dtype: torch.dtype, side: int = 3) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = [(2, 6, side, side), (6, 1, 1)] + [(1, 6, 1, 1) if film else (2, 6, side, side)] * 2
    tensors = [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]
    return [t.to(torch.float32 if t.ndim == 3 and dtype == torch.bfloat16 else dtype).requires_grad_() for t in tensors]


def chain(x: Tensor, gain: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The formula, left to autograd."""
    return F.silu(normed(x, gain) * (1 + scale) + shift)


@pytest.mark.parametrize("film", [False, True])
def test_the_gradient_is_that_of_the_formula(film: bool) -> None:
    given = inputs(film, torch.float64)
    assert torch.autograd.gradcheck(modulated, given)
    with torch.no_grad():
        plain = modulated(*given)
    assert torch.equal(modulated(*given), plain)


@pytest.mark.parametrize("film", [False, True])
def test_in_bfloat16_the_forward_pass_is_the_same_to_the_bit(film: bool) -> None:
    given = inputs(film, torch.bfloat16, side=16)
    there = torch.randn((2, 6, 16, 16), generator=torch.Generator().manual_seed(1))
    one, two = modulated(*given), chain(*given)
    assert one.dtype == two.dtype == torch.float32
    assert torch.equal(one, two)
    doubles = [t.detach().double().requires_grad_() for t in given]
    wanted = torch.autograd.grad(chain(*doubles), doubles, there.double())
    found = torch.autograd.grad(one, given, there)
    for a, b, t in zip(found, wanted, given, strict=True):
        assert (a.dtype, a.shape) == (t.dtype, t.shape)
        # A handful of roundings of 2^-9 each, which add up like a random walk.
        assert (a.double() - b).norm() < 2**-7 * b.norm()

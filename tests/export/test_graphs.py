"""The denoiser as a module: guidance and update against the formulas they come from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from msdm_engine.errors import NumericsError
from msdm_export.graphs import DenoiserGraph, example_conditions
from msdm_export.onnx_export import round_to_half
from msdm_train.model.conditioner import Conditions, Context
from msdm_train.model.msdm import MSDM


@pytest.fixture(scope="module")
def model() -> MSDM:
    from dataclasses import replace

    from msdm_train.model.config import preset

    torch.manual_seed(0)
    model = MSDM(replace(preset("tiny"), state_std=(0.3,) * 6)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().sum() == 0:
                parameter.normal_(std=0.1)
    return model


def _context(model: MSDM, samples: int) -> Context:
    with torch.no_grad():
        return model.conditioner(Conditions(**example_conditions(model.config, samples, 32, 32)))


def _folded(context: Context, branches: int) -> tuple[Tensor | tuple[Tensor, ...], ...]:
    def fold(tensor: Tensor) -> Tensor:
        return tensor.reshape(branches, -1, *tensor.shape[1:])

    return (*(fold(tensor) for tensor in context[:4]), tuple(fold(tensor) for tensor in context.map_features))


def _part(context: Context, start: int, stop: int) -> Context:
    keys, values, bias, pooled = (tensor[start:stop] for tensor in context[:4])
    return Context(keys, values, bias, pooled, tuple(tensor[start:stop] for tensor in context.map_features))


def test_guidance_is_the_weighted_sum_and_the_update_is_linear(model: MSDM) -> None:
    batch, branches = 2, 3
    context = _context(model, batch * branches)
    x, d_prev, z = torch.randn(3, batch, 6, 32, 32)
    row = torch.tensor([0.7, 0.4, 0.9, -0.2, 0.3])
    weights = torch.tensor([[2.0, 1.5], [-0.7, -0.2], [-0.3, -0.3]])
    with torch.no_grad():
        following, denoised = DenoiserGraph(model)(x, d_prev, z, row, weights, *_folded(context, branches))
        each = [model(x, row[:1], _part(context, g * batch, (g + 1) * batch)) for g in range(branches)]
    expected = sum(weights[g][:, None, None, None] * each[g] for g in range(branches))
    # The same float32 numbers in another order of summation: a few units in the last place of values near 3.
    torch.testing.assert_close(denoised, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(following, 0.4 * x + 0.9 * denoised - 0.2 * d_prev + 0.3 * z, atol=2e-6, rtol=0)


def test_one_branch_of_weight_one_is_the_model_itself(model: MSDM) -> None:
    context, x = _context(model, 2), torch.randn(2, 6, 32, 32)
    row, weights = torch.tensor([1.3, 0.0, 1.0, 0.0, 0.0]), torch.ones(1, 2)
    with torch.no_grad():
        following, denoised = DenoiserGraph(model)(x, x, x, row, weights, *_folded(context, 1))
        expected = model(x, row[:1], context)
    assert torch.equal(denoised, expected)
    assert torch.equal(following, denoised)


def test_rounding_to_half_says_how_far_and_refuses_overflow() -> None:
    layer = torch.nn.Linear(64, 64)
    before = layer.weight.detach().clone()
    change = round_to_half(layer)
    # float16 has 11 significant bits: rounding moves a value by at most 2^-11 of itself.
    assert 0 < change <= 2**-11
    assert torch.equal(layer.weight, before.half().float())
    with torch.no_grad():
        layer.weight[0, 0] = 1e6
    with pytest.raises(NumericsError, match=r"weight weight exceeds float16's range: 1e\+06"):
        round_to_half(layer)

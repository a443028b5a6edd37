from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from msdm_train.model.conditioner import Context
from msdm_train.model.config import preset
from msdm_train.model.detail import Detail
from msdm_train.model.msdm import MSDM

MakeBatch = Callable[..., dict[str, Tensor]]
SIGMA = torch.tensor([0.7])


@torch.no_grad()
def denoised(model: MSDM, batch: dict[str, Tensor], sigma: Tensor = SIGMA) -> Tensor:
    return model(batch["state"], sigma, model.context(batch))


@pytest.mark.parametrize(("n", "height", "width"), [(1, 4, 4), (2, 16, 16), (3, 8, 28), (1, 64, 32)])
def test_shapes(lively: MSDM, make_batch: MakeBatch, n: int, height: int, width: int) -> None:
    batch = make_batch(n, height, width)
    context = lively.context(batch)
    # 2 attention blocks (down, up) of 2 heads; 2 morphology + 2 colour + 1 null + 48 text tokens of 16 channels
    assert context.keys.shape == context.values.shape == (n, 2, 2, 53, 16)
    assert context.bias.shape == (n, 53)
    assert context.pooled.shape == (n, 32)
    assert [f.shape for f in context.map_features] == [
        (n, 8, height // 2, width // 2),
        (n, 16, height // 4, width // 4),
    ]
    for sigma in (SIGMA, SIGMA.expand(n)):
        out = denoised(lively, batch, sigma)
        assert out.shape == (n, 6, height, width)
        assert out.isfinite().all()


def test_class_maps_widen_state_and_condition(make_batch: MakeBatch) -> None:
    config = replace(preset("tiny"), n_classes=2, state_mean=(0.0,) * 8, state_std=(0.5,) * 8)
    batch = make_batch(1)
    batch["state"], batch["maps"] = torch.zeros(1, 8, 16, 16), torch.zeros(1, 5, 16, 16)
    assert denoised(MSDM(config).eval(), batch).shape == (1, 8, 16, 16)


@pytest.fixture
def uncut(monkeypatch: pytest.MonkeyPatch) -> None:
    """EDM as published: the finest frequencies stay."""
    monkeypatch.setattr(Detail, "without_finest", lambda self, picture, sigma: picture)


@pytest.mark.usefixtures("uncut")
def test_a_fresh_model_is_the_preconditioning_alone(fresh: MSDM, make_batch: MakeBatch) -> None:
    """F = 0 leaves D = mean + c_skip (x - mean), c_skip = std^2 / (sigma^2 + std^2): the best linear estimate."""
    batch = make_batch(3)
    sigma = torch.tensor([0.01, 0.5, 40.0])
    s, std, mean = sigma[:, None, None, None], fresh.std, fresh.mean
    expected = mean + std**2 / (s**2 + std**2) * (batch["state"] - mean)
    torch.testing.assert_close(denoised(fresh, batch, sigma), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("uncut")
def test_the_network_sees_unit_variance_and_adds_in_data_scale(
    lively: MSDM, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table 1 of EDM: F is given c_in (x - mean), and counts c_out = sigma std / sqrt(sigma^2 + std^2)."""
    batch, seen = make_batch(1), []

    def ones(x: Tensor, sigma: Tensor, context: Context, bands: Tensor) -> Tensor:
        seen.append(x)
        return torch.ones_like(x)

    monkeypatch.setattr(lively.unet, "forward", ones)
    total = (SIGMA**2 + lively.std**2).sqrt()
    centred = batch["state"] - lively.mean
    expected = lively.mean + lively.std**2 / total**2 * centred + SIGMA * lively.std / total
    torch.testing.assert_close(denoised(lively, batch), expected)
    torch.testing.assert_close(seen[0], centred / total)


@pytest.mark.parametrize(
    ("present", "value"), [("maps_present", "maps"), ("colour_present", "colour"), ("token_mask", "token_ids")]
)
def test_a_dropped_condition_has_no_influence_and_a_given_one_has(
    lively: MSDM, make_batch: MakeBatch, present: str, value: str
) -> None:
    one, other = make_batch(), make_batch(seed=1)
    swapped = {**one, value: other[value]}
    assert not torch.allclose(denoised(lively, one), denoised(lively, swapped), atol=1e-4)
    absent = torch.zeros_like(one[present])
    without = denoised(lively, {**one, present: absent})
    # Products with an exact zero: equal to the bit.
    assert torch.equal(without, denoised(lively, {**swapped, present: absent}))
    assert not torch.allclose(without, denoised(lively, one), atol=1e-4)


def test_foreground_and_background_colour_are_dropped_one_by_one(lively: MSDM, make_batch: MakeBatch) -> None:
    one = {**make_batch(), "colour_present": torch.tensor([[1.0, 0.0]]).expand(2, 2)}
    background = one["colour"].clone()
    background[:, 6:] += 0.5
    assert torch.equal(denoised(lively, one), denoised(lively, {**one, "colour": background}))
    assert not torch.allclose(denoised(lively, one), denoised(lively, {**one, "colour": background.roll(6, 1)}))


def test_masked_tokens_have_no_influence(lively: MSDM, make_batch: MakeBatch) -> None:
    one = make_batch()
    ids = one["token_ids"].clone()
    ids[:, 5:] = (ids[:, 5:] + 17) % 1024
    assert torch.equal(denoised(lively, one), denoised(lively, {**one, "token_ids": ids}))
    ids[:, 4] = (ids[:, 4] + 17) % 1024
    assert not torch.allclose(denoised(lively, one), denoised(lively, {**one, "token_ids": ids}), atol=1e-5)


def test_pairs_of_a_batch_do_not_meet(lively: MSDM, make_batch: MakeBatch) -> None:
    batch = make_batch(3)
    alone = {name: value[1:2] for name, value in batch.items()}
    # Another batch shape, other blocks of the sums: float32 rounding of values of size one.
    torch.testing.assert_close(denoised(lively, batch)[1:2], denoised(lively, alone), rtol=0, atol=2e-5)


def test_a_window_computes_what_the_whole_does(lively: MSDM, make_batch: MakeBatch) -> None:
    """Far from its border, given the context of the whole: no statistics over space, no attention over pixels.

    The receptive field of 'tiny', in pixels of half size: enter 1, down 2, lower level 2 x (2 + 2), up 2, leave 1
    and at most 1 from pooling: 15, or 30 px; before it bands of detail 2 px, after it the head 2 and the finest 4.
    """
    batch = make_batch(1, 96, 128)
    with torch.no_grad():
        context = lively.context(batch)
        whole = lively(batch["state"], SIGMA, context)
        y, x, side = 8, 24, 80
        features = tuple(
            f[..., y // s : (y + side) // s, x // s : (x + side) // s]
            for f, s in zip(context.map_features, (2, 4), strict=True)
        )
        window = lively(batch["state"][..., y : y + side, x : x + side], SIGMA, context._replace(map_features=features))
    difference = (window - whole[..., y : y + side, x : x + side]).abs()
    # The same sums in other blocks: float32 rounding of values of size one.
    assert difference[..., 38:-38, 38:-38].max() < 2e-5
    assert difference[..., 0, :].max() > 1e-3  # the border itself does feel its padding

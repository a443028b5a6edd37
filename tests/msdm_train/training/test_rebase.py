from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from msdm_engine.errors import RequestError
from msdm_train.data.pack import Pack, principal_axes
from msdm_train.model.blocks import zero
from msdm_train.model.config import preset
from msdm_train.model.msdm import MSDM
from msdm_train.training.checkpoint import CheckpointInfo, write_checkpoint
from msdm_train.training.loss import edm_loss
from msdm_train.training.rebase import rebase, rebased, with_detail

MEAN = (0.3, 0.1, 0.5, -0.5, 0.0, 0.05)
# Without bands of detail: they are scaled by a spread of their own, which changes with the axes.
OLD = replace(preset("tiny"), detail_width=0, state_mean=MEAN, state_std=(0.3, 0.4, 0.2, 0.8, 0.3, 0.25))
ANGLE = 0.6
TURN = (np.cos(ANGLE), np.sin(ANGLE), 0.0, -np.sin(ANGLE), np.cos(ANGLE), 0.0, 0.0, 0.0, 1.0)
NEW = replace(OLD, colour_basis=tuple(float(v) for v in TURN), state_std=(0.5, 0.1, 0.2, 0.8, 0.3, 0.25))


def lively(config: type(OLD)) -> MSDM:  # type: ignore[valid-type]
    torch.manual_seed(3)
    model = MSDM(config).eval()
    for parameter in model.parameters():  # zero layers would make every test pass
        torch.nn.init.normal_(parameter, std=0.25)
    return model


def batch_of(n: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "state": torch.rand(n, 6, 16, 16, generator=generator) * 2 - 1,
        "maps": torch.zeros(n, 3, 16, 16),
        "maps_present": torch.ones(n, 1),
        "colour": torch.zeros(n, 12),
        "colour_present": torch.zeros(n, 2),
        "token_ids": torch.zeros(n, 48, dtype=torch.int64),
        "token_mask": torch.zeros(n, 48),
    }


@torch.no_grad()
def test_rebased_weights_compute_the_same_at_low_noise() -> None:
    old = lively(OLD)
    new = MSDM(NEW).eval()
    new.load_state_dict(rebased(old.state_dict(), OLD, NEW))
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch_of(2).items()}
    state, sigma = batch["state"], torch.tensor([1e-4]).double()
    # What the network adds is sigma F; float64, because its last digits are what is compared.
    one, other = ((m.double()(state, sigma, m.context(batch)) - state) / sigma for m in (old, new))
    assert one.abs().max() > 1
    # Left out is (1 - c_skip) z / sigma = sigma z / std^2, at most 1e-4 * 1.4 / 0.1^2 = 0.014 on either side.
    torch.testing.assert_close(one, other, rtol=0, atol=0.028)


@torch.no_grad()
def test_a_fresh_model_is_the_best_linear_estimate_along_the_axes() -> None:
    """D = mean + S (S + sigma^2 I)^-1 (x - mean) with the covariance S = B^T diag(std^2) B."""
    model = MSDM(NEW).eval()
    batch, sigma = batch_of(1), 0.3
    found = model(batch["state"], torch.tensor([sigma]), model.context(batch))
    basis = np.eye(6)
    basis[:3, :3] = np.array(TURN).reshape(3, 3)
    covariance = basis.T @ np.diag(np.square(NEW.state_std)) @ basis
    gain = covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(6))
    mean = np.array(MEAN)[:, None]
    expected = mean + gain @ (batch["state"].numpy().reshape(6, -1) - mean)
    np.testing.assert_allclose(found.numpy().reshape(6, -1), expected, rtol=0, atol=2e-6)  # float32


@torch.no_grad()
def test_components_and_channels_are_inverse_and_keep_length() -> None:
    model, x = MSDM(NEW), batch_of(1)["state"]
    z = model.components(x)
    torch.testing.assert_close(model.channels(z), x, rtol=0, atol=1e-6)
    torch.testing.assert_close(z.square().sum(), x.square().sum(), rtol=1e-6, atol=0)
    assert not torch.equal(z, x)


@torch.no_grad()
def test_the_loss_counts_each_axis_by_its_own_spread() -> None:
    """F = 0, no noise: D - mean = c_skip z; the weighted square is sigma^2 (z / std)^2 / (sigma^2 + std^2)."""
    model = MSDM(NEW).eval()
    batch, sigma = batch_of(2), 0.5
    parts = edm_loss(model, batch, torch.full((2,), sigma), torch.zeros(2, 6, 16, 16))
    z = model.components(batch["state"] - model.mean).double()
    std = torch.tensor(NEW.state_std).double()[:, None, None]
    expected = (sigma**2 * (z / std) ** 2 / (sigma**2 + std**2))[:, :3].mean()
    torch.testing.assert_close(parts.image.double(), expected, rtol=1e-5, atol=0)


def test_principal_axes_of_a_known_covariance() -> None:
    basis = np.array(TURN).reshape(3, 3)
    rows, std = principal_axes(basis.T @ np.diag([0.01, 0.25, 0.0]) @ basis)
    # Largest first; the direction without spread gets a thousandth of the largest.
    np.testing.assert_allclose(std, [0.5, 0.1, 0.5e-3], rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.abs((rows * basis[[1, 0, 2]]).sum(1)), 1, rtol=0, atol=1e-9)
    assert (rows[np.arange(3), np.abs(rows).argmax(1)] > 0).all()


WIDER = replace(NEW, detail_width=8)


@torch.no_grad()
def test_a_network_that_gains_bands_of_detail_computes_the_same() -> None:
    old, new = lively(NEW), MSDM(WIDER).eval()
    new.load_state_dict(with_detail(old.state_dict(), NEW, WIDER))
    batch, sigma = batch_of(2), torch.tensor([0.05])
    bands = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(2))
    one = old.unet(batch["state"], sigma, old.context(batch))
    other = new.unet(batch["state"], sigma, new.context(batch), bands)
    # Equal but for the order of sums in the stem's convolution, which now has more inputs, all times zero.
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_head_draws_on_the_picture_and_leaves_the_maps_alone() -> None:
    """The stem's weights for the bands are zeroed to see the head alone."""
    model = lively(WIDER)
    detail = model.unet.detail
    assert detail is not None
    batch, sigma = batch_of(1), torch.tensor([0.05])
    model.unet.enter.weight[:, -24:] = 0
    with_head = model(batch["state"], sigma, model.context(batch))
    zero(detail.leave)
    without = model(batch["state"], sigma, model.context(batch))
    assert (with_head - without)[:, :3].abs().max() > 1e-3
    torch.testing.assert_close(with_head[:, 3:], without[:, 3:], rtol=0, atol=0)


def test_another_head_than_the_source_has_is_refused(small_pack: Path, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    source, info = tmp_path / "source", CheckpointInfo(1, WIDER, {}, {})
    write_checkpoint(source, info, MSDM(WIDER).state_dict(), tokenizer, None)
    with pytest.raises(RequestError, match="head of 8, not 16"):
        rebase(source, Pack(small_pack), tmp_path / "out", 16)
    kept = rebase(source, Pack(small_pack), tmp_path / "out")
    assert kept.detail_width == 8
    assert len(kept.detail_std) == 9
    assert kept.detail_std != WIDER.detail_std  # measured on the pack

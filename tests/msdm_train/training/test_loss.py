from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from msdm_train.model.config import preset
from msdm_train.model.msdm import MSDM
from msdm_train.training.loss import DETAIL_WEIGHT, REGION_WEIGHT, Noise, Objective, edm_loss

MEAN, STD = (0.3, 0.1, 0.5, -0.5, 0.0, 0.05), (0.3, 0.4, 0.2, 0.8, 0.3, 0.25)
SIGMA = torch.tensor([0.01, 0.5, 30.0])


@pytest.fixture(scope="module")
def model() -> MSDM:
    torch.manual_seed(0)
    return MSDM(replace(preset("tiny"), detail_width=0, state_mean=MEAN, state_std=STD)).eval()


@pytest.fixture(scope="module")
def detailed() -> MSDM:
    """With bands of detail."""
    torch.manual_seed(0)
    return MSDM(replace(preset("tiny"), state_mean=MEAN, state_std=STD)).eval()


def batch_of(state: Tensor) -> dict[str, Tensor]:
    n = len(state)
    return {
        "state": state,
        "maps_present": torch.ones(n, 1),
        "colour": torch.zeros(n, 12),
        "colour_present": torch.zeros(n, 2),
        "token_ids": torch.zeros(n, 48, dtype=torch.int64),
        "token_mask": torch.zeros(n, 48),
    }


@pytest.mark.parametrize(("data", "noise"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (-1.0, 1.0)])
def test_weight_of_the_loss(model: MSDM, data: float, noise: float) -> None:
    """A fresh model has F = 0, so D - state = std (sigma n - ... ) in closed form.

    With state = mean + std u: D - state = (std^2 sigma n - sigma^2 std u) / (sigma^2 + std^2), and the weight
    (sigma^2 + std^2) / (sigma std)^2 makes its square (std n - sigma u)^2 / (sigma^2 + std^2).
    """
    shape = (3, 6, 8, 8)
    state = (model.mean + model.std * data).expand(shape)
    parts = edm_loss(model, batch_of(state), SIGMA, torch.full(shape, noise))
    s, std = SIGMA[:, None].double(), torch.tensor(STD).double()
    expected = (std * noise - s * data) ** 2 / (s**2 + std**2)
    # float32: at sigma 0.01 the weight is 1e4 and D - state cancels to its last digits.
    assert parts.image.item() == pytest.approx(expected[:, :3].mean().item(), rel=2e-3)
    assert parts.maps.item() == pytest.approx(expected[:, 3:].mean().item(), rel=2e-3)
    assert parts.total.item() == pytest.approx((parts.image + parts.maps).item() / 2 + REGION_WEIGHT * parts.regions)


def test_every_channel_and_noise_level_counts_alike_at_the_start(model: MSDM) -> None:
    """The mean over unit data and unit noise of the closed form above is (std^2 + sigma^2) / (the same) = 1."""
    g = torch.Generator().manual_seed(0)
    for sigma in SIGMA:
        state = model.mean + model.std * torch.randn(4, 6, 32, 32, generator=g)
        parts = edm_loss(model, batch_of(state), sigma.expand(4), torch.randn(4, 6, 32, 32, generator=g))
        # Mean of 12288 squares of normal numbers: standard deviation sqrt(2 / 12288) = 0.013; four of them.
        assert parts.image.item() == pytest.approx(1, abs=0.052)
        assert parts.maps.item() == pytest.approx(1, abs=0.052)


def test_the_objective_is_the_loss_under_the_model_s_own_names(model: MSDM) -> None:
    batch, noise = batch_of(torch.rand(3, 6, 8, 8)), torch.randn(3, 6, 8, 8)
    objective = Objective(model)
    assert torch.equal(objective(batch, SIGMA, noise).total, edm_loss(model, batch, SIGMA, noise).total)
    assert {name.removeprefix("model.") for name in objective.state_dict()} == set(model.state_dict())


def test_noise_levels_are_stratified_over_the_batch() -> None:
    noise = Noise(mean=-0.9, std=1.4)
    sigma = noise.draw(64, torch.Generator().manual_seed(0))
    u = 0.5 * (1 + torch.erf((sigma.log() + 0.9) / 1.4 / 2**0.5))
    # One draw in each 64th of the distribution, in random order.
    assert sorted((u * 64).floor().int().tolist()) == list(range(64))
    assert (sigma.diff() > 0).any()
    assert (sigma.diff() < 0).any()


def test_noise_levels_are_log_normal_within_the_range_that_is_sampled() -> None:
    g = torch.Generator().manual_seed(0)
    log = torch.cat([Noise().draw(100, g) for _ in range(40)]).log().numpy()
    # Stratified draws scatter less than independent ones, whose mean has a deviation of 1.4 / sqrt(4000) = 0.022.
    np.testing.assert_allclose([log.mean(), log.std()], [-0.9, 1.4], atol=0.05)
    clipped = Noise(sigma_min=0.3, sigma_max=0.5).draw(100, g)
    assert [clipped.min().item(), clipped.max().item()] == pytest.approx([0.3, 0.5])
    assert torch.equal(
        Noise().draw(5, torch.Generator().manual_seed(3)), Noise().draw(5, torch.Generator().manual_seed(3))
    )


def test_an_error_counts_by_the_spread_and_the_noise_of_its_bands(
    detailed: MSDM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chequered error has r = -1: in each band its own square, times 1 / d^2 + 1 / (n sigma^2)."""
    assert detailed.unet.detail is not None
    board = (-1.0) ** (torch.arange(16)[:, None] + torch.arange(16)[None])
    state, error = detailed.mean.expand(1, 6, 16, 16), torch.zeros(1, 6, 16, 16)
    error[:, :3] = 1e-3 * board
    monkeypatch.setattr(detailed, "forward", lambda x, sigma, context: state + error)
    parts = edm_loss(detailed, batch_of(state), torch.tensor([0.3]), torch.zeros(1, 6, 16, 16))
    spread, share = detailed.unet.detail.spread.flatten(), detailed.unet.detail.noise.flatten()
    expected = ((1 / spread**2 + 1 / (share * 0.3**2)) * 1e-6).mean().item()
    # Repeated edges lower the response of the outermost two of sixteen rows: at most 1 - (12 / 16)^2 of the pixels.
    assert (12 / 16) ** 2 * expected < parts.detail.item() <= expected
    total = (parts.image + parts.maps) / 2 + DETAIL_WEIGHT * parts.detail + REGION_WEIGHT * parts.regions
    assert parts.total.item() == pytest.approx(total.item())


def test_a_model_without_bands_has_no_error_in_them(model: MSDM) -> None:
    assert edm_loss(model, batch_of(torch.rand(3, 6, 8, 8)), SIGMA, torch.randn(3, 6, 8, 8)).detail.item() == 0


def test_a_mean_colour_counts_whatever_the_area(model: MSDM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of 64 pixels are nuclei and 0.1 off on average, while their errors of +-1 around it cancel."""
    state = torch.full((1, 6, 8, 8), -1.0)
    state[:, 3, 0, :2] = 1.0
    error = torch.zeros(1, 6, 8, 8)
    error[:, 0, 0, :2] = torch.tensor([1.1, -0.9])
    error[:, 4] = 5.0  # maps have no colour
    monkeypatch.setattr(model, "forward", lambda x, sigma, context: state + error)
    parts = edm_loss(model, batch_of(state), torch.tensor([0.5]), torch.zeros(1, 6, 8, 8))
    weight = (0.5**2 + STD[0] ** 2) / (0.5 * STD[0]) ** 2
    assert parts.regions.item() == pytest.approx(weight * 0.1**2 / 3 / 2, rel=1e-5)  # of 3 components and 2 regions


def test_pictures_without_nuclei_have_a_mean_colour_too(model: MSDM) -> None:
    parts = edm_loss(model, batch_of(torch.full((3, 6, 8, 8), -1.0)), SIGMA, torch.randn(3, 6, 8, 8))
    assert parts.regions.isfinite()

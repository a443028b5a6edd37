"""Losses on fixed crops and noise of ``val``."""

from __future__ import annotations

import torch

from msdm_train.data.batches import CropSampler
from msdm_train.model.msdm import MSDM
from msdm_train.training.loss import Noise, edm_loss


@torch.no_grad()
def validation_losses(model: MSDM, sampler: CropSampler, noise: Noise, batches: int = 6) -> dict[str, float]:
    """``given_maps``: of the picture, all conditions given; ``invented_maps``: of the whole state, without maps."""
    device = model.mean.device
    totals = {"val/given_maps": 0.0, "val/invented_maps": 0.0}
    for i in range(batches):
        generator = torch.Generator().manual_seed(i)
        batch = {k: torch.as_tensor(v).to(device) for k, v in sampler(i).items()}
        sigma = noise.draw(sampler.batch, generator).to(device)
        unit = torch.randn(batch["state"].shape, generator=generator).to(device)
        totals["val/given_maps"] += edm_loss(model, batch, sigma, unit).image.item() / batches
        batch["maps_present"] = torch.zeros_like(batch["maps_present"])
        totals["val/invented_maps"] += edm_loss(model, batch, sigma, unit).total.item() / batches
    return totals

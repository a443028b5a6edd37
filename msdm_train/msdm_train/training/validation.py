"""Losses on fixed crops and noise of ``val``."""

from __future__ import annotations

import torch

from msdm_train.data.batches import CropSampler
from msdm_train.model.msdm import MSDM
from msdm_train.training.loss import Noise, edm_loss


@torch.no_grad()
def validation_losses(model: MSDM, sampler: CropSampler, noise: Noise, batches: int = 6) -> dict[str, float]:
    """``given_maps``: of the picture, ``detail``: of its bands, ``regions``: of the colours, all conditions given.

    ``invented_maps`` is the error of picture and maps where the morphology is dropped.
    """
    device = model.mean.device
    totals = {"val/given_maps": 0.0, "val/detail": 0.0, "val/regions": 0.0, "val/invented_maps": 0.0}
    for i in range(batches):
        generator = torch.Generator().manual_seed(i)
        batch = {k: torch.as_tensor(v).to(device) for k, v in sampler(i).items()}
        sigma = noise.draw(sampler.batch, generator).to(device)
        unit = torch.randn(batch["state"].shape, generator=generator).to(device)
        parts = edm_loss(model, batch, sigma, unit)
        totals["val/given_maps"] += parts.image.item() / batches
        totals["val/detail"] += parts.detail.item() / batches
        totals["val/regions"] += parts.regions.item() / batches
        batch["maps_present"] = torch.zeros_like(batch["maps_present"])
        parts = edm_loss(model, batch, sigma, unit)
        totals["val/invented_maps"] += (parts.image + parts.maps).item() / 2 / batches
    return totals

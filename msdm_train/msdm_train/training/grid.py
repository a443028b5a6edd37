"""Sample grids for TensorBoard, drawn by a plain Euler sampler over the PyTorch model."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from msdm_engine.sampling.schedule import karras_sigmas
from msdm_train.data.batches import Batch
from msdm_train.model.msdm import MSDM


@torch.no_grad()
def euler_samples(model: MSDM, batch: dict[str, Tensor], steps: int, seed: int) -> Tensor:
    """[B, C, H, W] samples for the conditions of a batch; Euler over Karras sigmas."""
    shape = batch["state"].shape
    sigmas = torch.as_tensor(karras_sigmas(steps), dtype=torch.float32)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(batch["state"].device) * sigmas[0]
    context = model.context({**batch, "maps": batch["state"][:, 3:]})
    for sigma, following in pairwise(sigmas):
        denoised = model(x, sigma[None].to(x.device), context)
        x = denoised + (x - denoised) * (following / sigma)
    return x


def sample_grid(model: MSDM, batch: Batch, count: int = 8, steps: int = 12) -> Tensor:
    """[3, 3 h, count w] uint8: real crops, pairs made from their masks, pairs with an invented layout."""
    device = model.mean.device
    tensors = {name: torch.as_tensor(value)[:count].to(device) for name, value in batch.items()}
    given = euler_samples(model, tensors, steps, seed=1)
    invented = euler_samples(
        model, {**tensors, "maps_present": torch.zeros_like(tensors["maps_present"])}, steps, seed=1
    )
    rows = [torch.cat(list(pictures[:, :3]), 2) for pictures in (tensors["state"], given, invented)]
    return ((torch.cat(rows, 1).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()

"""EDM's loss (Karras et al. 2022, equations 3 and 8) with a data scale for each component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from msdm_train.model.config import PICTURE
from msdm_train.model.detail import detail_bands
from msdm_train.model.msdm import MSDM

# Of the error in the bands of detail. It begins twenty times above the optimum, where a stem draws its grid; at its
# end it adds a third to the loss of the picture.
DETAIL_WEIGHT = 0.05
# Of the error in the mean colour of nuclei and of background. At high noise, where a picture's stain is decided, the
# network of run 4 missed the colour that it was told by a fifth of its spread, and that was a twentieth of its loss.
REGION_WEIGHT = 4.0


@dataclass(frozen=True)
class Noise:
    """ln(sigma) ~ N(mean, std^2), clipped to the range that is ever sampled.

    Wider than EDM's (-1.2, 1.2): invented layouts are decided at high noise, chromatin at low noise.
    """

    mean: float = -0.9
    std: float = 1.4
    sigma_min: float = 0.005
    sigma_max: float = 80.0

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """[n] float32 noise levels, stratified over the batch so that each batch covers the range."""
        u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
        u = u[torch.randperm(n, generator=generator)].clamp(1e-4, 1 - 1e-4)
        normal = torch.erfinv(2 * u - 1) * 2**0.5
        return (self.mean + self.std * normal).exp().clamp(self.sigma_min, self.sigma_max)


class LossParts(NamedTuple):
    """``total`` is what is minimised; the others are means for the log."""

    total: Tensor
    image: Tensor
    maps: Tensor
    detail: Tensor
    regions: Tensor


def edm_loss(model: MSDM, batch: dict[str, Tensor], sigma: Tensor, noise: Tensor) -> LossParts:
    """Weighted squared error of D against the clean state.

    The weight (sigma^2 + std_c^2) / (sigma std_c)^2 makes every component and noise level count alike at the start.

    A model with bands of detail (:mod:`msdm_train.model.detail`) has a further term: the error of each band, by the
    same weight with the band's own spread and share of the noise. The picture's term hardly sees the finest
    frequencies, because tissue has so little there; the eye sees a grid. The mean colour of nuclei and of background
    has a term too: it is what a request asks for, and the pixels' loss sees little of it. The minimum of each term is
    the posterior mean, so their weights say where to be good first, not what is right.

    Args:
        batch: with ``state`` [B, C, H, W] and the conditions.
        sigma: [B] noise levels.
        noise: [B, C, H, W] standard normal.
    """
    state = batch["state"]
    context = model.context({**batch, "maps": state[:, 3:]})
    denoised = model(state + sigma[:, None, None, None] * noise, sigma, context)
    s = sigma[:, None, None, None]
    error = model.components((denoised - state).float())
    weight = (s**2 + model.std**2) / (s * model.std) ** 2
    weighted = weight * error.square()
    image, maps = weighted[:, :3].mean(), weighted[:, 3:].mean()
    detail = _detail_error(model, error[:, :PICTURE], s)
    regions = _region_error(error[:, :PICTURE], weight[:, :PICTURE, 0, 0], state[:, PICTURE : PICTURE + 1] > 0)
    total = (image + maps) / 2 + DETAIL_WEIGHT * detail + REGION_WEIGHT * regions
    return LossParts(total, image.detach(), maps.detach(), detail.detach(), regions.detach())


def _detail_error(model: MSDM, error: Tensor, s: Tensor) -> Tensor:
    """Mean over the bands of the squared error of each, as a share of its best linear estimate's; 0 without bands."""
    if model.unet.detail is None:
        return error.new_zeros(())
    data, noise = model.unet.detail.spread**2, model.unet.detail.noise * s**2
    return ((data + noise) / (data * noise) * detail_bands(error).square()).mean()


def _region_error(error: Tensor, weight: Tensor, foreground: Tensor) -> Tensor:
    """Squared error of the mean over foreground and over background, mean over both, the components and the batch.

    Args:
        error: [B, 3, H, W] along the components.
        weight: [B, 3] of each component's square.
        foreground: [B, 1, H, W] bool.
    """
    squares = []
    for region in (foreground.to(error.dtype), (~foreground).to(error.dtype)):
        mean = (error * region).sum((2, 3)) / region.sum((2, 3)).clamp(min=1)
        squares.append((weight * mean.square()).mean())
    return (squares[0] + squares[1]) / 2


class Objective(nn.Module):
    """The loss as a module's forward, which is what DistributedDataParallel has to wrap.

    Gradients are averaged over the processes only where forward goes through the wrapper. The weights stay those
    of ``model``, under its own names.
    """

    def __init__(self, model: MSDM) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor], sigma: Tensor, noise: Tensor) -> LossParts:
        """As :func:`edm_loss`."""
        return edm_loss(self.model, batch, sigma, noise)

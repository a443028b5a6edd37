"""The finest detail, at full resolution: what a U-Net behind a pixel-unshuffle stem sees badly and draws as a grid.

Tissue holds little at the highest frequencies, noise holds as much there as anywhere. EDM scales the network's input by
the spread of the whole picture, so at low noise all that tells tissue from noise arrives a hundred times too small.
Second differences, scaled by their own spread, arrive at unit variance at every noise level. They enter the stem beside
the state, and two convolutions at full resolution add to the network's output what the stem's grid cannot draw.

On the way out it is the other way round. At high noise EDM's c_skip lets a fifth of the noise through and the network
has to cancel it to a hundredth, pixel by pixel. The finest frequencies of its estimate are therefore cut by the share
that Wiener's filter would take: all of them where noise outweighs tissue, nothing where it is the other way round.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msdm_train.model.blocks import conv, zero
from msdm_train.model.config import PICTURE, ModelConfig

# Mean square of the frequency response of one and of two second differences, r = -(sin^2(pi fx) + sin^2(pi fy)) / 2:
# what is left of the variance of white noise.
NOISE_SHARE = (0.3125, 0.1650390625)
# Taps of sin^8(pi f) along one axis, which is 0.06 at a quarter of a cycle a pixel, 0.4 at 0.35 and 1 at Nyquist.
FINEST = tuple(sign * math.comb(8, k) / 256 for k, sign in enumerate((1, -1) * 4 + (1,)))
FINEST_NOISE_SHARE = sum(tap**2 for tap in FINEST)


def second_differences(x: Tensor) -> Tensor:
    """A five-point Laplacian over 8, edges repeated: [..., C, H, W] -> the same shape, response r in [-1, 0].

    Products and sums instead of a convolution, as in :class:`msdm_train.model.msdm.MSDM`: they stay float32.
    """
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    beside, above = p[..., 1:-1, :-2] + p[..., 1:-1, 2:], p[..., :-2, 1:-1] + p[..., 2:, 1:-1]
    return (beside + above) * 0.125 - x * 0.5


def detail_bands(picture: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, 6, H, W]: once differenced, then twice."""
    once = second_differences(picture)
    return torch.cat([once, second_differences(once)], 1)


def finest(x: Tensor, axis: int) -> Tensor:
    """What sin^8(pi f) along ``axis`` (2 or 3) keeps, edges repeated: [B, C, H, W] float32 -> the same shape."""
    pad, side = len(FINEST) // 2, (-1, 1) if axis == 2 else (1, -1)
    padded = F.pad(x, (0, 0, pad, pad) if axis == 2 else (pad, pad, 0, 0), mode="replicate")
    taps = torch.tensor(FINEST, dtype=x.dtype, device=x.device).reshape(1, 1, *side).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(padded, taps, groups=x.shape[1])


class Detail(nn.Module):
    """Bands of detail at unit variance, the head that draws at full resolution, and the cut of the finest."""

    spread: Tensor
    noise: Tensor
    finest_spread: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, bands = config.detail_width, 2 * PICTURE
        self.stem = config.stem
        self.register_buffer("spread", torch.tensor(config.detail_std[:bands])[:, None, None], persistent=False)
        self.register_buffer("finest_spread", torch.tensor(config.detail_std[bands:])[:, None, None], persistent=False)
        shares = torch.tensor(NOISE_SHARE).repeat_interleave(PICTURE)[:, None, None]
        self.register_buffer("noise", shares, persistent=False)
        self.features = conv(config.channels[0], (width - bands) * config.stem**2)
        self.mix, self.leave = conv(width, width), zero(conv(width, PICTURE))

    def bands(self, picture: Tensor, sigma: Tensor) -> Tensor:
        """Noisy centred components of the picture [B, 3, H, W], noise level [B, 1, 1, 1] -> [B, 6, H, W]."""
        return detail_bands(picture) * (self.spread**2 + self.noise * sigma**2).rsqrt()

    def forward(self, h: Tensor, bands: Tensor) -> Tensor:
        """Last features of the U-Net [B, C, H / stem, W / stem], bands [B, 6, H, W] -> [B, 3, H, W] to add to F."""
        drawn = torch.cat([F.pixel_shuffle(self.features(h), self.stem), bands], 1)
        return self.leave(F.silu(self.mix(drawn)))

    def without_finest(self, picture: Tensor, sigma: Tensor) -> Tensor:
        """Denoised centred components [B, 3, H, W] without what is more noise than tissue: (1 - w s_x) (1 - w s_y).

        ``s`` is sin^8(pi f) along an axis; w = n sigma^2 / (d^2 + n sigma^2) with d the spread of what ``s`` keeps of
        the data and n of unit noise. Float32 in any training precision: bfloat16 would round by more than ``d``.
        """
        noise = FINEST_NOISE_SHARE * sigma**2
        share = noise / (self.finest_spread**2 + noise)
        device = picture.device.type  # without it, is_autocast_enabled speaks of CUDA; "meta" knows no autocast
        autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if autocast else nullcontext():
            for axis in (2, 3):
                picture = picture - share * finest(picture, axis)
        return picture

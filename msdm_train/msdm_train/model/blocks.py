"""Building blocks of conditioner and U-Net. All feature maps are [B, C, H, W]."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from msdm_train.model.modulation import modulated, normed


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def zero(module: nn.Conv2d) -> nn.Conv2d:
    """Starts a residual branch as zero, so that a block begins as the identity."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


class ChannelNorm(nn.Module):
    """RMS norm over channels at each pixel: no spatial statistics, so a window computes what the whole does.

    Statistics are float32 in any precision: in half, a sum of squares over 192 channels may overflow.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape, root mean square over C equal to ``gain``."""
        return normed(x, self.gain)


class SigmaEmbedding(nn.Module):
    """Fourier features of ln(sigma) / 4 (EDM's c_noise) through two linear layers."""

    frequencies: Tensor

    def __init__(self, embedding: int, features: int = 32) -> None:
        super().__init__()
        # Geometric frequencies 0.25 .. 32 resolve c_noise, which spans about [-1.2, 1.1].
        self.register_buffer("frequencies", 2 * math.pi * torch.logspace(-2, 5, features, base=2.0))
        self.net = nn.Sequential(nn.Linear(2 * features, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

    def forward(self, sigma: Tensor) -> Tensor:
        """[N] noise levels -> [N, E]."""
        angle = (sigma.log() / 4)[:, None] * self.frequencies
        return self.net(torch.cat([angle.cos(), angle.sin()], 1))


class ResidualBlock(nn.Module):
    """Two convolutions; the first norm is modulated by the maps (SPADE), the second by sigma (FiLM).

    The modulation of SPADE (Park et al. 2019) is a 1 x 1 projection of map features that the conditioner has
    computed once, not a 3 x 3 convolution in each block.
    """

    def __init__(self, inputs: int, outputs: int, map_channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(inputs), ChannelNorm(outputs)
        self.spade = conv(map_channels, 2 * inputs, 1)
        self.film = nn.Linear(embedding, 2 * outputs)
        self.conv1, self.conv2 = conv(inputs, outputs), zero(conv(outputs, outputs))
        self.skip = conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, map_features: Tensor, embedding: Tensor) -> Tensor:
        """[B, inputs, H, W], [B, M, H, W], [B or 1, E] -> [B, outputs, H, W]."""
        scale, shift = self.spade(map_features).chunk(2, 1)
        h = self.conv1(modulated(x, self.norm1.gain, scale, shift))
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, 1)
        h = self.conv2(modulated(h, self.norm2.gain, scale, shift))
        return self.skip(x) + h


class CrossAttention(nn.Module):
    """Pixels ask the fused token sequence; keys and values come from the conditioner, once a sample."""

    def __init__(self, channels: int, heads: int, head_channels: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head_channels**-0.5
        self.norm = ChannelNorm(channels)
        self.query = conv(channels, heads * head_channels, 1)
        self.out = zero(conv(heads * head_channels, channels, 1))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """[B, C, H, W] with keys, values [B, heads, L, d] and bias [B, 1, 1, L] -> [B, C, H, W]."""
        b, _, h, w = x.shape
        q = self.query(self.norm(x)).reshape(b, self.heads, -1, h * w).transpose(2, 3)
        weights = torch.softmax(q @ keys.transpose(2, 3) * self.scale + bias, -1)
        return x + self.out((weights @ values).transpose(2, 3).reshape(b, -1, h, w))

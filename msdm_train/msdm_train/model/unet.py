"""The U-Net that runs in every step."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msdm_train.model.blocks import ChannelNorm, CrossAttention, ResidualBlock, SigmaEmbedding, conv, zero
from msdm_train.model.conditioner import Context
from msdm_train.model.config import PICTURE, ModelConfig
from msdm_train.model.detail import Detail


class Stage(nn.Module):
    """Residual blocks of one resolution, the last followed by cross-attention where the level has it."""

    def __init__(self, config: ModelConfig, level: int, inputs: int) -> None:
        super().__init__()
        width, maps = config.channels[level], config.map_channels[level]
        sizes = [inputs] + [width] * (config.blocks - 1)
        self.blocks = nn.ModuleList([ResidualBlock(size, width, maps, config.embedding) for size in sizes])
        attend = level in config.attention_levels
        self.attention = CrossAttention(width, config.heads, config.head_channels) if attend else None

    def forward(
        self, h: Tensor, map_features: Tensor, embedding: Tensor, kv: list[tuple[Tensor, Tensor, Tensor]]
    ) -> Tensor:
        """Takes its own keys and values from the front of ``kv`` if it attends."""
        for block in self.blocks:
            h = block(h, map_features, embedding)
        return h if self.attention is None else self.attention(h, *kv.pop(0))


class UNet(nn.Module):
    """The raw network F_theta of EDM: scaled noisy state -> [B, C, H, W].

    No self-attention: it runs at any size that is a multiple of its stride, at a cost linear in area.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.stem, widths = config.stem, config.channels
        channels = config.state_channels * config.stem**2
        self.sigma = SigmaEmbedding(config.embedding)
        self.detail = Detail(config) if config.detail_width else None
        bands = 2 * PICTURE * config.stem**2 if config.detail_width else 0
        self.enter = conv(channels + bands, widths[0])
        levels = range(len(widths))
        self.down = nn.ModuleList([Stage(config, level, widths[level]) for level in levels])
        self.shrink = nn.ModuleList([conv(a, b, 1) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([Stage(config, level, 2 * widths[level]) for level in levels])
        self.grow = nn.ModuleList([conv(b, a, 1) for a, b in pairwise(widths)])
        # The norm of the block that follows runs over both halves of the concatenation at once, so a level whose output
        # is weak beside the skip connection is not heard. With this norm it is (docs/training-log.md, run 5).
        self.below = nn.ModuleDict({str(level): ChannelNorm(widths[level]) for level in config.norm_below})
        self.norm, self.leave = ChannelNorm(widths[0]), zero(conv(widths[0], channels))

    @staticmethod
    def attention_blocks(config: ModelConfig) -> int:
        """How many blocks take keys and values: one a stage, down and up."""
        return 2 * len(config.attention_levels)

    def forward(self, x: Tensor, sigma: Tensor, context: Context, bands: Tensor | None = None) -> Tensor:
        """[B, C, H, W], noise levels [B] or [1], conditions of B samples, bands of detail -> [B, C, H, W]."""
        embedding = F.silu(self.sigma(sigma) + context.pooled)
        bias = context.bias[:, None, None, :]
        kv = [(k, v, bias) for k, v in zip(context.keys.unbind(1), context.values.unbind(1), strict=True)]
        maps = context.map_features
        seen = x if bands is None else torch.cat([x, bands], 1)
        h = self.enter(F.pixel_unshuffle(seen, self.stem))
        skips = []
        for level, stage in enumerate(self.down):
            if level:
                h = self.shrink[level - 1](F.avg_pool2d(h, 2))
            h = stage(h, maps[level], embedding, kv)
            skips.append(h)
        for level in reversed(range(len(self.up))):
            if level < len(self.grow):
                h = self.grow[level](h)
                if str(level) in self.below:
                    h = self.below[str(level)](h)
                h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = self.up[level](torch.cat([h, skips[level]], 1), maps[level], embedding, kv)
        h = F.silu(self.norm(h))
        raw = F.pixel_shuffle(self.leave(h), self.stem)
        if self.detail is None or bands is None:
            return raw
        return torch.cat([raw[:, :PICTURE] + self.detail(h, bands), raw[:, PICTURE:]], 1)

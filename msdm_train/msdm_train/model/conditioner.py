"""Everything that is computed once for each sample: map features, token fusion, keys and values."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msdm_engine.contract import COLOUR_FEATURES, MASKED_BIAS
from msdm_train.model.blocks import conv
from msdm_train.model.config import ModelConfig


class Conditions(NamedTuple):
    """Inputs of the conditioner; shapes as in :mod:`msdm_engine.contract`."""

    maps: Tensor
    maps_present: Tensor
    colour: Tensor
    colour_present: Tensor
    token_states: Tensor
    token_mask: Tensor


class Context(NamedTuple):
    """Outputs of the conditioner, inputs of the denoiser.

    ``keys``, ``values``: [B, A, heads, L, d] for A attention blocks; ``bias``: [B, L];
    ``pooled``: [B, E]; ``map_features``: one [B, M, H/s, W/s] for each resolution.
    """

    keys: Tensor
    values: Tensor
    bias: Tensor
    pooled: Tensor
    map_features: tuple[Tensor, ...]


class MapPyramid(nn.Module):
    """Map features for each resolution of the U-Net; absent maps become a learned constant."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.stem = config.stem
        self.absent = nn.Parameter(torch.zeros(config.maps, 1, 1))
        widths = config.map_channels
        inputs = (config.maps + 1) * config.stem**2
        self.first = nn.ModuleList([conv(a, b) for a, b in zip((inputs, *widths[:-1]), widths, strict=True)])
        self.second = nn.ModuleList([conv(width, width) for width in widths])

    def forward(self, maps: Tensor, present: Tensor) -> tuple[Tensor, ...]:
        """[B, maps, H, W] and [B, 1] -> one [B, M_l, H / 2^l / stem, ...] for each level l."""
        present = present[:, :, None, None]
        given = torch.cat([maps * present + self.absent * (1 - present), present.expand(-1, -1, *maps.shape[2:])], 1)
        h = F.pixel_unshuffle(given, self.stem)
        features = []
        for level, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            if level:
                h = F.avg_pool2d(h, 2)
            h = second(F.silu(first(h)))
            features.append(h)
        return tuple(features)


class TokenFusion(nn.Module):
    """Morphology, colour and metadata tokens as one sequence; an absent modality is its learned null token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, self.n_morphology = config.token_channels, config.morphology_tokens
        self.from_maps = nn.Linear(config.map_channels[-1], width * self.n_morphology)
        self.null_maps = nn.Parameter(torch.randn(self.n_morphology, width) * 0.5)
        half = COLOUR_FEATURES // 2
        self.from_colour = nn.ModuleList(
            [nn.Sequential(nn.Linear(half, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(2)]
        )
        self.null_colour = nn.Parameter(torch.randn(2, width) * 0.5)
        self.from_text = nn.Linear(config.text.hidden, width)
        self.null_text = nn.Parameter(torch.randn(width) * 0.5)
        self.pool = nn.Sequential(nn.Linear(4 * width, config.embedding), nn.SiLU())
        self.pool_out = nn.Linear(config.embedding, config.embedding)

    def forward(self, c: Conditions, top: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns tokens [B, L, width], bias [B, L] and the pooled conditions [B, E]."""
        b = c.colour.shape[0]
        present = c.maps_present[:, :, None]
        morphology = self.from_maps(top.mean((2, 3))).reshape(b, self.n_morphology, -1)
        morphology = morphology * present + self.null_maps * (1 - present)
        present = c.colour_present[:, :, None]
        halves = c.colour.chunk(2, 1)
        colour = torch.stack([net(half) for net, half in zip(self.from_colour, halves, strict=True)], 1)
        colour = colour * present + self.null_colour * (1 - present)
        text = self.from_text(c.token_states)
        mask = c.token_mask
        count = mask.sum(1, keepdim=True)
        # Without metadata all text tokens are masked and the null token alone stands for them.
        has_text = count.clamp(max=1)
        null = self.null_text.expand(b, 1, -1)
        pooled_text = (text * mask[:, :, None]).sum(1) / count.clamp(min=1)
        pooled_text = pooled_text * has_text + null[:, 0] * (1 - has_text)
        tokens = torch.cat([morphology, colour, null, text], 1)
        always = torch.ones_like(mask[:, :1]).expand(-1, self.n_morphology + 2)
        visible = torch.cat([always, 1 - has_text, mask], 1)
        pooled = self.pool(torch.cat([morphology.mean(1), colour.flatten(1), pooled_text], 1))
        return tokens, (1 - visible) * MASKED_BIAS, self.pool_out(pooled)


class Conditioner(nn.Module):
    """Conditions -> :class:`Context`."""

    def __init__(self, config: ModelConfig, attention_blocks: int) -> None:
        super().__init__()
        self.shape = (attention_blocks, config.heads, config.head_channels)
        self.pyramid, self.fusion = MapPyramid(config), TokenFusion(config)
        self.norm = nn.LayerNorm(config.token_channels)
        self.to_keys = nn.Linear(config.token_channels, attention_blocks * config.heads * config.head_channels)
        self.to_values = nn.Linear(config.token_channels, attention_blocks * config.heads * config.head_channels)

    def forward(self, conditions: Conditions) -> Context:
        """Runs once for each sample; shapes in :class:`Conditions` and :class:`Context`."""
        features = self.pyramid(conditions.maps, conditions.maps_present)
        tokens, bias, pooled = self.fusion(conditions, features[-1])
        tokens = self.norm(tokens)
        b, length, _ = tokens.shape
        keys = self.to_keys(tokens).reshape(b, length, *self.shape).permute(0, 2, 3, 1, 4)
        values = self.to_values(tokens).reshape(b, length, *self.shape).permute(0, 2, 3, 1, 4)
        return Context(keys, values, bias, pooled, features)

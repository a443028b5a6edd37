"""Wakes coarse levels of trained weights that have fallen silent, so that training need not begin anew.

A level is silent if what it sends up is weak beside the skip connection that it meets. It gets a norm that begins at
the strength of the skip connection, and the block that takes it in begins with zero weights for it: the network
computes what it did, and is a step away from hearing the level at full strength.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from msdm_engine.conditions.metadata import TextTokenizer
from msdm_train.data.batches import CropSampler
from msdm_train.data.pack import Pack
from msdm_train.model.config import ModelConfig
from msdm_train.model.msdm import MSDM

# Of the strength of the skip connection.
SILENT = 0.3
CROPS = 16
# Noise levels of the crops, decimal logarithms: from where chromatin is decided to where the layout is.
LOG_SIGMAS = (-2, 1)


class Strength(NamedTuple):
    """Root mean squares, over crops and pixels, of the two halves that a block on the way up concatenates."""

    below: float
    skip: float


def strengths(config: ModelConfig, weights: dict[str, Tensor], pack: Pack, tokenizer: Path) -> list[Strength]:
    """Of every level that has a coarser one, on train crops with noise from low to high.

    Args:
        tokenizer: file of the texts' tokenizer.
    """
    model = MSDM(config).eval()
    model.load_state_dict(weights)
    sampler = CropSampler(
        pack,
        "train",
        crop_px=128 // config.stride * config.stride,
        batch=CROPS,
        tokenizer=TextTokenizer(tokenizer, config.text_tokens),
        seed=0,
    )
    batch = {name: torch.as_tensor(value) for name, value in sampler(0).items()}
    state, generator = batch["state"], torch.Generator().manual_seed(0)
    sigma = torch.logspace(*LOG_SIGMAS, CROPS)
    noisy = state + sigma[:, None, None, None] * torch.randn(state.shape, generator=generator)
    unet, seen = model.unet, {}

    def listen(module: nn.Module, name: tuple[str, int]) -> None:
        def keep(_: nn.Module, __: tuple[Tensor, ...], out: Tensor) -> None:
            seen[name] = out.square().mean().sqrt().item()

        module.register_forward_hook(keep)

    for level, grow in enumerate(unet.grow):
        listen(unet.below[str(level)] if level in config.norm_below else grow, ("below", level))
        listen(unet.down[level], ("skip", level))
    with torch.no_grad():
        model(noisy, sigma, model.context({**batch, "maps": state[:, 3:]}))
    return [Strength(seen["below", level], seen["skip", level]) for level in range(len(unet.grow))]


def with_norm_below(
    weights: dict[str, Tensor], config: ModelConfig, found: list[Strength]
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration with norms for levels that are silent, and weights that compute what ``weights`` do.

    Not to the bit: what came from below is left out, and the block's own norm knows its strength on average only.
    """
    changed = dict(weights)
    silent = [level for level, (below, skip) in enumerate(found) if below < SILENT * skip]
    for level in silent:
        width, block, (below, skip) = config.channels[level], f"unet.up.{level}.blocks.0", found[level]
        changed[f"unet.below.{level}.gain"] = torch.full((width, 1, 1), skip)
        for name in (f"{block}.conv1.weight", f"{block}.skip.weight"):
            changed[name] = weights[name].clone()
            changed[name][:, :width] = 0
        # The block's own norm divides by the strength of both halves, and one of them has grown.
        louder = (2 * skip**2 / (skip**2 + below**2)) ** 0.5
        changed[f"{block}.norm1.gain"] = weights[f"{block}.norm1.gain"] * louder
    return replace(config, norm_below=tuple(sorted({*config.norm_below, *silent}))), changed

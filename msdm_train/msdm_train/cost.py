"""Parameters and arithmetic of a model, counted without computing anything.

Operations are those of convolutions and matrix products, two for each multiply-accumulate (the convention of
``torch.utils.flop_counter``); norms, activations and other element-wise work are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from msdm_engine.contract import COLOUR_FEATURES
from msdm_train.model.conditioner import Conditions
from msdm_train.model.config import PRESETS, ModelConfig
from msdm_train.model.msdm import MSDM
from msdm_train.training.loss import edm_loss

PARTS = ("text_encoder", "conditioner", "unet")


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Args:
        parameters: of each of :data:`PARTS`.
        step_flops: one denoising step (U-Net) of one pair.
        conditioner_flops: once a pair, before its first step.
    """

    parameters: dict[str, int]
    step_flops: int
    conditioner_flops: int

    @property
    def total(self) -> int:
        """Parameters of the whole model."""
        return sum(self.parameters.values())


def cost_of(config: ModelConfig, side_px: int = 128) -> Cost:
    """Parameters, and operations for one pair of ``side_px`` x ``side_px``, on PyTorch's meta device."""
    conditioner, step = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad():
        model = MSDM(config)
        state = torch.zeros(1, config.state_channels, side_px, side_px)
        states = torch.zeros(1, config.text_tokens, config.text.hidden)
        present = torch.zeros(1, 1), torch.zeros(1, COLOUR_FEATURES), torch.zeros(1, 2)
        with conditioner:
            context = model.conditioner(Conditions(state[:, 3:], *present, states, torch.zeros(1, config.text_tokens)))
        with step:
            model(state, torch.ones(1), context)
    parameters = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in PARTS}
    return Cost(parameters, step.get_total_flops(), conditioner.get_total_flops())


def training_batch(config: ModelConfig, batch: int, crop_px: int) -> tuple[MSDM, dict[str, Tensor], Tensor]:
    """A model, a batch of zeros and its noise levels, for counting inside a ``FakeTensorMode``."""
    config = replace(config, state_mean=(0.0,) * config.state_channels, state_std=(1.0,) * config.state_channels)
    conditions = {
        "state": torch.zeros(batch, config.state_channels, crop_px, crop_px),
        "maps_present": torch.zeros(batch, 1),
        "colour": torch.zeros(batch, COLOUR_FEATURES),
        "colour_present": torch.zeros(batch, 2),
        "token_ids": torch.zeros(batch, config.text_tokens, dtype=torch.int64),
        "token_mask": torch.zeros(batch, config.text_tokens),
    }
    return MSDM(config), conditions, torch.ones(batch)


def training_step_flops(config: ModelConfig, batch: int, crop_px: int) -> int:
    """Operations of one training step, forward and backward, all graphs included."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        model, conditions, sigma = training_batch(config, batch, crop_px)
        edm_loss(model, conditions, sigma, conditions["state"]).total.backward()
    return counter.get_total_flops()


HEADER = ("preset", "text encoder", "conditioner", "U-Net", "all", "GFLOP a step", "GFLOP once a pair")


def preset_rows(side_px: int = 128) -> list[tuple[str, ...]]:
    """Rows under :data:`HEADER`: parameters in millions, operations for one pair."""
    rows = []
    for name, config in PRESETS.items():
        cost = cost_of(config, side_px)
        counts = [f"{count / 1e6:.2f} M" for count in (*cost.parameters.values(), cost.total)]
        rows.append((name, *counts, f"{cost.step_flops / 1e9:.2f}", f"{cost.conditioner_flops / 1e9:.2f}"))
    return rows


def preset_text(side_px: int = 128) -> str:
    """The presets as a table for the terminal."""
    table = [HEADER, *preset_rows(side_px)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADER))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    return "\n".join([*lines, "", f"One pair of {side_px} x {side_px} px; 2 operations a multiply-accumulate."])


MARKDOWN = """# Presets

Written by `msdm-train presets --markdown > docs/presets.md`; a test holds it to the code.

{table}

Parameters, and operations for one pair of {side} x {side} px with one guidance branch. Every step runs the U-Net; the
conditioner runs once a pair, the text encoder once for each distinct text. Counted are convolutions and matrix
products, two operations for each multiply-accumulate (`torch.utils.flop_counter` on the meta device); norms,
activations and other element-wise work are left out. Operations grow with the area of the pair.

`tiny` is for tests, `mini` for experiments that train many generators, `small` is the reference model."""


def preset_markdown(side_px: int = 128) -> str:
    """``docs/presets.md``."""
    table = [HEADER, ("---",) + ("---:",) * (len(HEADER) - 1), *preset_rows(side_px)]
    return MARKDOWN.format(table="\n".join("| " + " | ".join(row) + " |" for row in table), side=side_px)

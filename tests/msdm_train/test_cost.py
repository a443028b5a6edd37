from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from msdm_train.cli import main
from msdm_train.cost import cost_of, preset_markdown, training_step_flops
from msdm_train.model.config import PRESETS, preset
from msdm_train.model.msdm import MSDM

PAGE = Path(__file__).parents[2] / "docs" / "presets.md"


def test_parameters_are_those_of_the_model() -> None:
    cost = cost_of(preset("tiny"))
    assert cost.total == sum(p.numel() for p in MSDM(preset("tiny")).parameters())
    assert list(cost.parameters) == ["text_encoder", "conditioner", "unet"]


def test_small_has_nine_million_parameters_at_most() -> None:
    """So that a half-precision bundle stays under 25 MiB."""
    assert cost_of(preset("small")).total <= 9_000_000


def test_presets_grow() -> None:
    costs = [cost_of(preset(name), 64) for name in ("tiny", "mini", "small", "base", "large")]
    assert set(PRESETS) == {"tiny", "mini", "small", "base", "large"}
    for smaller, larger in pairwise(costs):
        assert smaller.total < larger.total
        assert smaller.step_flops < larger.step_flops


def step_by_hand(side_px: int) -> int:
    """Operations of a step of 'tiny': 2 x kernel area x inputs x outputs at each pixel, and 2 m n k for a product.

    Widths 16 and 32 at a half and a quarter of the side; map features 8 and 16; embedding 32; attention of 2 heads
    of 16 over 2 + 2 + 1 + 48 tokens on the lower level, once down and once up. Six bands of detail of 3 channels' 2
    differences enter the stem too; the head of 8 draws 2 features at full resolution, and nine taps along either axis
    cut the finest of 3 channels.
    """
    high, low = (side_px // 2) ** 2, (side_px // 4) ** 2

    def block(pixels: int, inputs: int, outputs: int, maps: int) -> int:
        convolutions = pixels * (9 * inputs * outputs + 9 * outputs * outputs + maps * 2 * inputs)
        skip = pixels * inputs * outputs if inputs != outputs else 0
        return 2 * (convolutions + skip + 32 * 2 * outputs)

    attention = 2 * low * (32 * 32 + 32 * 32 + 53 * 32 + 53 * 32)
    sigma = 2 * (64 * 32 + 32 * 32)
    ends = 2 * high * 9 * 16 * ((24 + 24) + 24)  # in: 6 channels x 2 x 2 and 6 bands x 2 x 2, out: the channels
    detail = 2 * high * 9 * 16 * (2 * 4) + 2 * 4 * high * (9 * 8 * 8 + 9 * 8 * 3 + 2 * 9 * 3)
    between = 2 * low * 16 * 32 * 2  # 1 x 1 to and from the lower level
    down = block(high, 16, 16, 8) + block(low, 32, 32, 16)
    up = block(low, 64, 32, 16) + block(high, 32, 16, 8)
    return sigma + ends + detail + between + down + up + 2 * attention


@pytest.mark.parametrize("side_px", [16, 128])
def test_operations_of_a_step_by_hand(side_px: int) -> None:
    assert cost_of(preset("tiny"), side_px).step_flops == step_by_hand(side_px)


def test_operations_of_a_training_step_grow_with_the_batch() -> None:
    config = replace(preset("tiny"), state_mean=(0.1,) * 6)
    one, four = (training_step_flops(config, batch, 16) for batch in (1, 4))
    assert four == 4 * one
    cost = cost_of(config, 16)
    # Backward takes about twice the forward: one product for the inputs, one for the weights.
    assert 2.5 < one / (cost.step_flops + cost.conditioner_flops + text_flops()) < 3


def text_flops() -> int:
    """One layer of 'tiny' BERT over 48 tokens of 32 channels: four projections, two products, two of 32 x 64."""
    return 2 * (48 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 48 * 48 * 32)


def test_the_page_is_what_the_command_writes() -> None:
    result = CliRunner().invoke(main, ["presets", "--markdown"], catch_exceptions=False)
    assert result.output == PAGE.read_text() == preset_markdown() + "\n"
    table = CliRunner().invoke(main, ["presets"], catch_exceptions=False).output
    small = next(line for line in table.splitlines() if line.split()[0] == "small")
    assert small.split()[1:9:2] == ["0.40", "0.48", "7.08", "7.96"]
    assert torch.get_default_device().type == "cpu"

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from msdm_engine.conditions.maps import maps_from_instances
from msdm_train.segmentation.loss import GRADIENT_WEIGHT, segmentation_loss

#: float32 means of a few hundred values of size 1.
FLOAT32 = 1e-5
#: A logit whose sigmoid is 1 in float32.
SURE = 40.0


def target(*labels: tuple[int, int, int]) -> Tensor:
    """Nuclei (x0, x1, label) as bars over rows 2 to 5 of an 8 x 16 picture."""
    instances = torch.zeros(8, 16, dtype=torch.int32)
    for x0, x1, label in labels:
        instances[2:6, x0:x1] = label
    return torch.from_numpy(maps_from_instances(instances.numpy()))[None]


def perfect(wanted: Tensor) -> Tensor:
    return torch.cat([wanted[:, :1] * SURE, wanted[:, 1:]], 1)


@pytest.mark.parametrize("wanted", [target((2, 8, 1), (8, 12, 2)), target()])
def test_a_perfect_output_costs_nothing(wanted: Tensor) -> None:
    loss = segmentation_loss(perfect(wanted), wanted)
    assert loss.total.item() == pytest.approx(0, abs=FLOAT32)


def test_undecided_foreground() -> None:
    wanted = target((4, 12, 1))  # 32 of 128 pixels
    output = perfect(wanted)
    output[:, 0] = 0
    loss = segmentation_loss(output, wanted)
    # p = 1/2 everywhere: ln 2; Dice 2 * 16 / (64 + 32).
    assert loss.cross_entropy.item() == pytest.approx(0.693147, abs=FLOAT32)
    assert loss.dice.item() == pytest.approx(1 - 32 / 96, abs=FLOAT32)
    assert loss.maps.item() == loss.gradients.item() == 0


def test_maps_count_over_nuclei_only() -> None:
    wanted = target((4, 12, 1))
    output = perfect(wanted)
    output[:, 1] += 0.5
    output[:, 1:, :, 13:] = 7.0  # background
    loss = segmentation_loss(output, wanted)
    # The horizontal map is off by 0.5, the vertical one right; a constant shift has no slope.
    assert loss.maps.item() == pytest.approx(0.25 / 2, abs=FLOAT32)
    assert loss.gradients.item() == pytest.approx(0, abs=FLOAT32)
    assert loss.total.item() == pytest.approx(0.125, abs=FLOAT32)


def test_slopes_notice_a_missing_fall_between_touching_nuclei() -> None:
    wanted = target((4, 8, 1), (8, 12, 2))
    merged = perfect(target((4, 12, 1)))
    loss = segmentation_loss(merged, wanted)
    # Along x a nucleus of 4 pixels holds -1, -1/3, 1/3, 1: slopes 2/3 three times, then -2, then 2/3 three times. The
    # merged one rises by 2/7 at each of the 7 steps. 4 rows of 7 pairs along x, 8 columns of 3 pairs along y.
    squares = 6 * (2 / 3 - 2 / 7) ** 2 + (2 + 2 / 7) ** 2
    assert loss.gradients.item() == pytest.approx(4 * squares / (4 * 7 + 8 * 3), abs=FLOAT32)
    assert loss.total.item() == pytest.approx(loss.maps.item() + GRADIENT_WEIGHT * loss.gradients.item(), abs=FLOAT32)

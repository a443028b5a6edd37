"""A tiny model in which every part matters, and a batch of conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from msdm_train.model.config import preset
from msdm_train.model.msdm import MSDM

MEAN, STD = (0.3, 0.1, 0.5, -0.5, 0.0, 0.05), (0.3, 0.4, 0.2, 0.8, 0.3, 0.25)
MakeBatch = Callable[..., dict[str, Tensor]]


def _fresh() -> MSDM:
    torch.manual_seed(0)
    return MSDM(replace(preset("tiny"), state_mean=MEAN, state_std=STD)).eval()


@pytest.fixture
def fresh() -> MSDM:
    """The tiny model as training begins with it."""
    return _fresh()


@pytest.fixture(scope="session")
def lively() -> MSDM:
    """The tiny model with random numbers in place of every zero: no branch is silent."""
    model = _fresh()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return model


@pytest.fixture(scope="session")
def make_batch() -> MakeBatch:
    """``make_batch(n, height, width)``: random conditions, all of them given; texts of 5 tokens."""

    def make(n: int = 2, height: int = 16, width: int = 16, seed: int = 0) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(seed)
        mask = torch.zeros(n, 48)
        mask[:, :5] = 1
        return {
            "state": torch.rand(n, 6, height, width, generator=g) * 2 - 1,
            "maps": torch.rand(n, 3, height, width, generator=g) * 2 - 1,
            "maps_present": torch.ones(n, 1),
            "colour": torch.rand(n, 12, generator=g) * 2 - 1,
            "colour_present": torch.ones(n, 2),
            "token_ids": torch.randint(1, 1024, (n, 48), generator=g),
            "token_mask": mask,
        }

    return make

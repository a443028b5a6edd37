from __future__ import annotations

from pathlib import Path

import pytest
import torch

from msdm_train.data.pack import Pack
from msdm_train.model.config import preset
from msdm_train.model.msdm import MSDM
from msdm_train.training.config import FitConfig, Part
from msdm_train.training.forecast import activation_bytes, memory_of, run_seconds, seconds_a_step
from msdm_train.training.start import begin


def test_memory_of_weights_and_optimizer() -> None:
    weights = 4 * sum(p.numel() for p in MSDM(preset("tiny")).parameters())
    memory = memory_of(preset("tiny"), FitConfig(5, batch=2, crop_px=16, ema_also=(3.0, 17.0)))
    assert (memory.weights, memory.gradients, memory.optimizer) == (weights, weights, 2 * weights)
    assert memory.averages == 3 * weights
    assert memory.total == 7 * weights + memory.activations


def test_activations_grow_with_area_and_batch() -> None:
    """Maps dominate and grow with both; tokens, which grow with the batch only, are few."""
    one = activation_bytes(preset("tiny"), 1, 32, "no")
    assert activation_bytes(preset("tiny"), 4, 32, "no") == pytest.approx(4 * one, rel=0.05)
    # Four times the area, but the text encoder's part does not grow with it.
    assert 2 * one < activation_bytes(preset("tiny"), 1, 64, "no") < 4 * one
    assert activation_bytes(preset("tiny"), 1, 64, "bf16") < activation_bytes(preset("tiny"), 1, 64, "no")
    # The largest part of a curriculum counts.
    config = FitConfig(5, batch=1, crop_px=16, curriculum=(Part(64, 1, 2),))
    assert memory_of(preset("tiny"), config).activations == activation_bytes(preset("tiny"), 1, 64, "no")


def test_the_count_is_what_a_real_step_keeps() -> None:
    from torch.autograd.graph import saved_tensors_hooks

    from msdm_train.cost import training_batch
    from msdm_train.training.loss import edm_loss

    model, batch, sigma = training_batch(preset("tiny"), 2, 32)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda x: x):
        edm_loss(model, batch, sigma, batch["state"])
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    real = sum(size for pointer, size in sizes.items() if pointer not in own)
    # BERT's attention takes its kernel's own way with real tensors, which differs in small ones.
    assert activation_bytes(preset("tiny"), 2, 32, "no") == pytest.approx(real, rel=0.1)


def test_time(small_pack: Path, tmp_path: Path) -> None:
    config = FitConfig(10, batch=2, crop_px=32, curriculum=(Part(16, 4, 3), Part(16, 2, 4)))
    assert run_seconds(config, [1.0, 10.0, 100.0]) == 3 * 1 + 4 * 10 + 3 * 100
    assert run_seconds(config, [1.0, 10.0, 100.0], done=5) == 2 * 10 + 3 * 100
    pack = Pack(small_pack)
    seconds = seconds_a_step(pack, begin(pack, tmp_path, config, "tiny", None), config, steps=1)
    assert len(seconds) == 3
    assert all(value > 0 for value in seconds)

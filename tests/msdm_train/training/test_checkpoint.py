from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from msdm_engine.errors import InputError
from msdm_train.model.config import preset
from msdm_train.model.msdm import MSDM
from msdm_train.training import checkpoint
from msdm_train.training.checkpoint import (
    CheckpointInfo,
    load_model,
    read_info,
    restore_training,
    settled,
    training_tensors,
    write_checkpoint,
)


def model_of(seed: int) -> MSDM:
    torch.manual_seed(seed)
    return MSDM(preset("tiny")).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def info_of(step: int) -> CheckpointInfo:
    return CheckpointInfo(step, replace(preset("tiny"), state_mean=(0.1,) * 6), {"name": "d"}, {"config": {"a": 1}})


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    return path


def write(folder: Path, step: int, tokenizer: Path, training: dict[str, Tensor] | None = None) -> None:
    write_checkpoint(folder, info_of(step), model_of(step).state_dict(), tokenizer, training)


def test_round_trip(tmp_path: Path, tokenizer: Path) -> None:
    folder = tmp_path / "run" / "checkpoint"
    write(folder, 3, tokenizer)
    model, info = load_model(folder)
    assert info == info_of(3)
    assert not model.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in model_of(3).state_dict().items())
    assert (folder / "tokenizer.json").read_text() == "{}"
    write(folder, 4, tokenizer)
    assert read_info(folder).step == 4
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


class Crash(Exception):
    """The process ends here."""


@pytest.mark.parametrize("survived", [0, 1])
def test_a_crash_in_the_swap_loses_nothing(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """The swap has two moves; the crash comes in place of the first, or of the second."""
    folder = tmp_path / "checkpoint"
    moves: list[Path] = []
    write(folder, 1, tokenizer)

    def replace_until_crash(source: Any, target: Any, really: Any = os.replace) -> None:
        if len(moves) == survived:
            raise Crash
        moves.append(target)
        really(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, "replace", replace_until_crash)
        with pytest.raises(Crash):
            write(folder, 2, tokenizer)
    assert folder.exists() == (survived == 0)
    assert read_info(folder).step == 1
    assert load_model(folder)[1].step == 1
    # And the next write, even if it crashes too, does not lose the survivor.
    moves.clear()
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, "replace", replace_until_crash)
        with pytest.raises(Crash):
            write(folder, 2, tokenizer)
    assert read_info(folder).step == 1
    write(folder, 3, tokenizer)
    assert settled(folder) == folder
    assert read_info(folder).step == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "tokenizer.json"]


def test_a_crash_while_writing_leaves_the_last_one(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    write(folder, 1, tokenizer)
    with pytest.raises(FileNotFoundError):
        write(folder, 2, tmp_path / "no tokenizer")
    assert read_info(folder).step == 1
    write(folder, 3, tokenizer)
    assert read_info(folder).step == 3
    assert not (tmp_path / "checkpoint.tmp").exists()


def test_damage_is_named(tmp_path: Path, tokenizer: Path) -> None:
    folder = tmp_path / "checkpoint"
    with pytest.raises(InputError, match="checkpoint is not a checkpoint"):
        read_info(folder)
    write(folder, 1, tokenizer)
    raw = json.loads((folder / "checkpoint.json").read_text())
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        load_model(folder)
    (folder / "checkpoint.json").write_text(json.dumps({**raw, "format": 9}))
    with pytest.raises(InputError, match=r"checkpoint\.json has format 9"):
        read_info(folder)
    (folder / "checkpoint.json").write_text(json.dumps({k: v for k, v in raw.items() if k != "step"}))
    with pytest.raises(InputError, match="is not a checkpoint: 'step'"):
        read_info(folder)
    (folder / "checkpoint.json").write_text("{")
    with pytest.raises(InputError, match="is not a checkpoint"):
        read_info(folder)


def adam(model: MSDM) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.99))


def step(model: MSDM, optimizer: torch.optim.Optimizer, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=g))
    optimizer.step()


def test_optimizer_and_scaler_come_back_to_the_bit() -> None:
    model = model_of(0)
    optimizer, scaler = adam(model), torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=7)
    step(model, optimizer, 1)
    step(model, optimizer, 2)
    tensors = {k: v.clone().contiguous() for k, v in training_tensors(model, optimizer, scaler).items()}
    other = model_of(5)
    other_optimizer, other_scaler = adam(other), torch.amp.GradScaler("cpu")
    restore_training(tensors, other, other_optimizer, other_scaler)
    assert other_scaler.state_dict() == scaler.state_dict()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        for name, value in optimizer.state[one].items():
            found = other_optimizer.state[two][name]
            assert torch.equal(value, found)
            assert (value.stride(), value.dtype) == (found.stride(), found.dtype)
    step(model, optimizer, 3)
    step(other, other_optimizer, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))

"""Checkpoint folders: safetensors and JSON, written whole or not at all, no pickle.

A checkpoint holds ``checkpoint.json`` (format, model configuration, data, licence), ``model.safetensors`` (the
averaged weights that are exported), ``tokenizer.json``, and, for resuming, ``training.safetensors`` (raw weights
and the optimizer's moments).
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from msdm_engine.errors import InputError
from msdm_train.model.config import ModelConfig
from msdm_train.model.msdm import MSDM

FORMAT_VERSION = 1


@dataclass(frozen=True)
class CheckpointInfo:
    """The JSON of a checkpoint.

    Args:
        step: optimizer steps so far, those of the checkpoints it was initialised from included.
        data: name, licence, source, statistics and the fields that it was trained on.
        training: the settings of the run and its history.
    """

    step: int
    model: ModelConfig
    data: dict[str, Any]
    training: dict[str, Any]


def write_checkpoint(
    folder: Path, info: CheckpointInfo, weights: dict[str, Tensor], tokenizer: Path, training: dict[str, Tensor] | None
) -> None:
    """Writes a checkpoint beside its final name and moves it there."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, temporary / "model.safetensors")
    if training is not None:
        save_file({name: value.contiguous() for name, value in training.items()}, temporary / "training.safetensors")
    shutil.copyfile(tokenizer, temporary / "tokenizer.json")
    document = {
        "format": FORMAT_VERSION,
        "step": info.step,
        "model": info.model.to_json(),
        "data": info.data,
        "training": info.training,
    }
    (temporary / "checkpoint.json").write_text(json.dumps(document, indent=1) + "\n")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def read_info(folder: Path) -> CheckpointInfo:
    """Reads ``checkpoint.json``; the error names the file and what is wrong with it."""
    path = folder / "checkpoint.json"
    try:
        raw = json.loads(path.read_text())
        if raw["format"] != FORMAT_VERSION:
            raise InputError(f"{path} has format {raw['format']}", note=f"this version reads format {FORMAT_VERSION}")
        return CheckpointInfo(raw["step"], ModelConfig.from_json(raw["model"]), raw["data"], raw["training"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder} is not a checkpoint: {error}", hint="point at a folder with checkpoint.json"
        ) from error


def load_model(folder: Path) -> tuple[MSDM, CheckpointInfo]:
    """The averaged model of a checkpoint, in evaluation mode on the CPU."""
    info = read_info(folder)
    model = MSDM(info.model)
    model.load_state_dict(read_tensors(folder / "model.safetensors"))
    return model.eval(), info


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; the error names the file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}", hint="the checkpoint is incomplete or damaged") from error


def training_tensors(model: MSDM, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Raw weights and Adam's moments under readable names."""
    tensors = {f"model.{name}": value.detach().cpu() for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{key}.{name}"] = torch.as_tensor(value).detach().cpu()
    return tensors


def restore_training(tensors: dict[str, Tensor], model: MSDM, optimizer: torch.optim.Optimizer) -> None:
    """Puts back what :func:`training_tensors` took."""
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    for name, parameter in model.named_parameters():
        found = {
            k.split(".", 2)[1]: v for k, v in tensors.items() if k.startswith("adam.") and k.split(".", 2)[2] == name
        }
        if found:
            device = parameter.device
            optimizer.state[parameter] = {k: v if k == "step" else v.to(device) for k, v in found.items()}

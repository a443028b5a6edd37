"""Checkpoint folders: safetensors and JSON, written whole or not at all, no pickle.

A checkpoint holds ``checkpoint.json`` (format, model configuration, data, licence), ``model.safetensors`` (the
averaged weights that are exported), ``tokenizer.json``, and, for resuming, ``training.safetensors`` (raw weights,
the optimizer's moments and, in float16, the state of the loss scaler).

A folder cannot be replaced in one move. While the new one takes the place of the last one, that is ``NAME.old``:
a crash just then loses nothing, because readers look there too (:func:`settled`) and the next write puts it back.
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
from torch import Tensor, nn

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


def settled(folder: Path) -> Path:
    """Where the checkpoint of that name lies: ``folder``, or ``folder.old`` after a crash in the midst of a swap."""
    old = folder.with_name(folder.name + ".old")
    return old if not folder.exists() and old.exists() else folder


def write_checkpoint(
    folder: Path, info: CheckpointInfo, weights: dict[str, Tensor], tokenizer: Path, training: dict[str, Tensor] | None
) -> None:
    """Writes a checkpoint beside its final name and moves it there: see :func:`swap_in`."""
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
    swap_in(temporary, folder)


def swap_in(temporary: Path, folder: Path) -> None:
    """Flushes the files of a finished folder to disk and moves it to its name, over the last one of that name.

    At any moment ``folder`` or ``folder.old`` is whole, if there was one before.
    """
    for path in temporary.iterdir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
    if settled(folder) != folder:
        os.replace(settled(folder), folder)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def read_info(folder: Path) -> CheckpointInfo:
    """Reads ``checkpoint.json``; the error names the file and what is wrong with it."""
    path = settled(folder) / "checkpoint.json"
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
    folder = settled(folder)
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


def training_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None
) -> dict[str, Tensor]:
    """Raw weights, Adam's moments and the loss scaler's state under readable names."""
    tensors = {f"model.{name}": value.detach().cpu() for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{key}.{name}"] = torch.as_tensor(value).detach().cpu()
    if scaler is not None:
        for key, value in scaler.state_dict().items():
            tensors[f"scaler.{key}"] = torch.tensor(float(value), dtype=torch.float64)
    return tensors


def restore_training(
    tensors: dict[str, Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Puts back what :func:`training_tensors` took.

    Moments take the memory layout of their parameter, as those that the optimizer makes itself have: a resumed run
    then goes through the same kernels as an uninterrupted one.
    """
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        if not key.startswith("adam."):
            continue
        _, moment, name = key.split(".", 2)
        parameter = parameters[name]
        laid_out = value if moment == "step" else torch.empty_like(parameter).copy_(value)
        optimizer.state[parameter][moment] = laid_out.detach()
    if scaler is not None:
        state = {k.removeprefix("scaler."): v.item() for k, v in tensors.items() if k.startswith("scaler.")}
        whole = ("growth_interval", "_growth_tracker")
        scaler.load_state_dict({k: int(v) if k in whole else v for k, v in state.items()})

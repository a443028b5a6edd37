"""The length of the average chosen after the training, from those that the run kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.errors import InputError, RequestError
from msdm_train.data.batches import CropSampler
from msdm_train.data.pack import Pack
from msdm_train.model.msdm import MSDM
from msdm_train.training.checkpoint import CheckpointInfo, read_info, read_tensors, settled, write_checkpoint
from msdm_train.training.config import FitConfig, with_defaults
from msdm_train.training.ema import averages_from_tensors
from msdm_train.training.validation import validation_losses


def _averages(checkpoint: Path) -> tuple[CheckpointInfo, dict[float, dict[str, Tensor]]]:
    """All averages of a checkpoint, the one that is exported first."""
    folder = settled(checkpoint)
    info = read_info(folder)
    if not (folder / "training.safetensors").is_file():
        raise InputError(f"{checkpoint} holds one average only", hint="point at the last checkpoint of a run")
    exported = {with_defaults(info.training["config"])["ema_gamma"]: read_tensors(folder / "model.safetensors")}
    return info, {**exported, **averages_from_tensors(read_tensors(folder / "training.safetensors"))}


def gammas_of(checkpoint: Path) -> list[float]:
    """Lengths of the averages in a checkpoint; the first is the one that an export takes."""
    return list(_averages(checkpoint)[1])


def losses_of_averages(checkpoint: Path, pack_path: Path) -> dict[float, dict[str, float]]:
    """Validation losses of each average, on the crops and noise that training validates on.

    Raises:
        InputError: no checkpoint of a run, or a pack without val.
    """
    info, averages = _averages(checkpoint)
    config = FitConfig.from_json(with_defaults(info.training["config"]))
    tokenizer = TextTokenizer(settled(checkpoint) / "tokenizer.json", info.model.text_tokens)
    pack = Pack(pack_path)
    sampler = CropSampler(pack, "val", crop_px=config.crop_px, batch=config.batch, tokenizer=tokenizer, seed=99)
    model = MSDM(info.model).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    found = {}
    for gamma, weights in averages.items():
        model.load_state_dict(weights)
        found[gamma] = validation_losses(model, sampler, config.noise())
    return found


def choose_average(checkpoint: Path, gamma: float, out: Path) -> None:
    """Writes a checkpoint whose weights are the average of that length; training cannot be resumed from it.

    Raises:
        InputError: no checkpoint of a run.
        RequestError: the run kept no average of that length, or ``out`` exists.
    """
    info, averages = _averages(checkpoint)
    if gamma not in averages:
        raise RequestError(f"gamma {gamma:g}", note=f"kept were {', '.join(f'{g:g}' for g in averages)}")
    if out.exists():
        raise RequestError(f"{out} exists", hint="choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    chosen = replace(info, training={**info.training, "ema_chosen": gamma})
    write_checkpoint(out, chosen, averages[gamma], settled(checkpoint) / "tokenizer.json", None)

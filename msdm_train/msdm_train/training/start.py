"""Where a run begins: from nothing, from a checkpoint of another run, or from its own last checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msdm_engine.bundle.manifest import MANIFEST
from msdm_engine.errors import InputError, RequestError
from msdm_train.data.pack import Pack
from msdm_train.data.vocabulary import tokenizer_json
from msdm_train.model.config import ModelConfig, TextConfig, preset
from msdm_train.model.detail import detail_bands, finest
from msdm_train.model.pretrained import read_text_encoder
from msdm_train.training.checkpoint import CheckpointInfo, read_info, read_tensors, settled
from msdm_train.training.config import FREE_ON_RESUME, FitConfig, with_defaults
from msdm_train.training.from_bundle import read_bundle

DEFAULT_PRESET = "small"


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Args:
        origin: in words.
        info: configuration, data and history of the run.
        step: steps that this run has already made.
        weights: averaged weights to begin with, if there are any.
        training: raw weights and optimizer state of a run that goes on.
        tokenizer: the text of ``tokenizer.json``.
        text_weights: of a pretrained text encoder, for a run that begins without weights.
    """

    origin: str
    info: CheckpointInfo
    step: int
    weights: dict[str, Tensor] | None
    training: dict[str, Tensor] | None
    tokenizer: str
    text_weights: dict[str, Tensor] | None = None


def begin(pack: Pack, run: Path, config: FitConfig, model: str | None, init: Path | None) -> Start:
    """Decides where a run begins; reads only.

    Args:
        run: folder of the run; a checkpoint in it decides.
        model: name of a preset; None: that of the checkpoint, else :data:`DEFAULT_PRESET`.
        init: checkpoint of another run, or a bundle.

    Raises:
        InputError: a checkpoint cannot be read.
        RequestError: the settings do not fit the checkpoint, or the crop does not fit the model.
    """
    if settled(run / "checkpoint").exists():
        start = _resumed(pack, run, config)
    elif init is not None:
        start = _initialised(pack, config, init)
    else:
        start = _fresh(pack, config, model or DEFAULT_PRESET)
    if model is not None and _without_scale(preset(model)) != _without_scale(start.info.model):
        raise RequestError(
            f"--model {model} is not the model of the checkpoint", hint="leave --model out, or use another folder"
        )
    for crop_px, _ in config.all_crops():
        if crop_px % start.info.model.stride:
            raise RequestError(f"crop_px {crop_px}", note=f"a multiple of {start.info.model.stride} for this model")
    return start


def _without_scale(config: ModelConfig) -> ModelConfig:
    """The configuration without what was measured on the data, and without the text encoder."""
    return replace(config, text=TextConfig(), n_classes=0, state_mean=(), state_std=(), colour_basis=(), detail_std=())


def _resumed(pack: Pack, run: Path, config: FitConfig) -> Start:
    last = settled(run / "checkpoint")
    info = read_info(last)
    began, wanted = with_defaults(info.training["config"]), config.to_json()
    changed = [f"{k}: {began[k]} -> {v}" for k, v in wanted.items() if k not in FREE_ON_RESUME and began[k] != v]
    if info.data["trained_on_fields"] != _data(pack)["trained_on_fields"]:
        changed.append(f"fields of the data set {info.data['name']}")
    if changed:
        raise RequestError(
            f"{run} was begun with other settings ({', '.join(changed)})",
            hint="use the same settings to resume, or another folder with --init to start from its checkpoint",
        )
    step = info.training["run_step"]
    if config.steps < step:
        raise RequestError(
            f"{run} has already made {step} steps, more than {config.steps}", hint="ask for more --steps"
        )
    weights, training = read_tensors(last / "model.safetensors"), read_tensors(last / "training.safetensors")
    return Start(f"resumes after step {step}", info, step, weights, training, (last / "tokenizer.json").read_text())


def _initialised(pack: Pack, config: FitConfig, init: Path) -> Start:
    if config.text_encoder:
        raise RequestError(
            "--text-encoder together with --init", hint="leave --text-encoder out: the checkpoint has its own"
        )
    info, weights, tokenizer = read_init(init)
    if info.model.n_classes != pack.info.n_classes:
        raise RequestError(
            f"{init} has {info.model.n_classes} nucleus classes, the data set {pack.info.n_classes}",
            hint="start from nothing, or prepare the data with the same classes",
        )
    history = info.training.get("history", []) + [info.training["config"] | {"steps": info.training["run_step"]}]
    training = {"config": config.to_json(), "run_step": 0, "history": history}
    origin = f"starts from {init} (step {info.step})"
    info = replace(info, data=_data(pack), training=training)
    return Start(origin, info, 0, weights, None, tokenizer)


def read_init(init: Path) -> tuple[CheckpointInfo, dict[str, Tensor], str]:
    """Description, averaged weights and tokenizer of a checkpoint, or of a bundle."""
    if (init / MANIFEST).is_file():
        return read_bundle(init)
    folder = settled(init)
    return read_info(folder), read_tensors(folder / "model.safetensors"), (folder / "tokenizer.json").read_text()


def _fresh(pack: Pack, config: FitConfig, name: str) -> Start:
    model = scaled_to(preset(name), pack)
    training: dict[str, Any] = {"config": config.to_json(), "run_step": 0, "history": []}
    if not config.text_encoder:
        info = CheckpointInfo(0, model, _data(pack), training)
        return Start(f"starts anew, preset {name}", info, 0, None, None, tokenizer_json(pack, model.text.vocabulary))
    text = read_text_encoder(config.text_encoder, model.text_tokens)
    info = CheckpointInfo(0, replace(model, text=text.config), _data(pack), training)
    origin = f"starts anew, preset {name}, text encoder {config.text_encoder}"
    return Start(origin, info, 0, None, None, text.tokenizer, text.weights)


def scaled_to(model: ModelConfig, pack: Pack) -> ModelConfig:
    """The configuration with classes, mean, spread and colour axes of the train pixels of a pack."""
    statistics = pack.info.statistics
    if "colour_basis" not in statistics:
        raise InputError(f"{pack.path} lacks the colour axes", hint="prepare the data again with this version of msdm")
    scaled = replace(
        model,
        n_classes=pack.info.n_classes,
        state_mean=tuple(statistics["state_mean"]),
        colour_basis=tuple(number for row in statistics["colour_basis"] for number in row),
        state_std=(*statistics["component_std"], *statistics["state_std"][3:]),
    )
    return replace(scaled, detail_std=detail_spread(scaled, pack)) if model.detail_width else scaled


def detail_spread(model: ModelConfig, pack: Pack) -> tuple[float, ...]:
    """Root mean square of each detail band, and of the finest, over the train regions of a pack: nine numbers."""
    basis = torch.tensor(model.colour_basis).reshape(3, 3)
    squares, pixels = torch.zeros(9, dtype=torch.float64), 0
    for field in pack.split("train"):
        for region in field.regions:
            image, _ = pack.window(field.id, region.y0, region.x0, region.y1, region.x1)
            picture = torch.einsum("kc,hwc->khw", basis, torch.from_numpy(image).float() / 127.5 - 1)
            along = (finest(picture[None], 2).square() + finest(picture[None], 3).square()) / 2
            squares += torch.cat([detail_bands(picture[None]).square(), along], 1).double().sum((0, 2, 3))
            pixels += image.shape[0] * image.shape[1]
    return tuple((squares / pixels).sqrt().tolist())


def _data(pack: Pack) -> dict[str, Any]:
    """What a checkpoint says of the data that it was trained on."""
    return {
        "name": pack.info.name,
        "licence": pack.info.licence,
        "source": pack.info.source,
        "statistics": pack.info.statistics,
        "trained_on_fields": [field.id for field in pack.split("train")],
    }

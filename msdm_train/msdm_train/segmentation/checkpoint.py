"""Folders of a trained segmenter: safetensors and JSON, written whole or not at all, no pickle.

``segmenter.json`` says how it was trained and on what, ``model.safetensors`` holds the averaged weights, and
``training.safetensors`` what a training needs to go on: raw weights and the optimizer's moments.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from msdm_engine.errors import InputError
from msdm_train.files import file_sha256
from msdm_train.segmentation.config import SegmenterConfig
from msdm_train.segmentation.network import Lite0, Plain, build
from msdm_train.training.checkpoint import read_tensors, settled, swap_in

FORMAT_VERSION = 1
INFO_FILE, WEIGHTS_FILE, TRAINING_FILE = "segmenter.json", "model.safetensors", "training.safetensors"


@dataclass(frozen=True)
class SegmenterInfo:
    """The JSON of a segmenter.

    Args:
        step: optimizer steps made.
        source: identity of the source of its crops: see :class:`~msdm_train.segmentation.sources.Source`.
        sha256: of its weights' file.
    """

    step: int
    config: SegmenterConfig
    source: dict[str, Any]
    sha256: str = ""


def write_segmenter(
    folder: Path, info: SegmenterInfo, weights: dict[str, Tensor], training: dict[str, Tensor]
) -> SegmenterInfo:
    """Writes a segmenter beside its final name and moves it there; returns ``info`` with the hash of the weights."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, tensors in ((WEIGHTS_FILE, weights), (TRAINING_FILE, training)):
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary / name)
    info = SegmenterInfo(info.step, info.config, info.source, file_sha256(temporary / WEIGHTS_FILE))
    document = {
        "format": FORMAT_VERSION,
        "step": info.step,
        "config": info.config.to_json(),
        "source": info.source,
        "sha256": info.sha256,
    }
    (temporary / INFO_FILE).write_text(json.dumps(document, indent=1) + "\n")
    swap_in(temporary, folder)
    return info


def read_segmenter_info(folder: Path) -> SegmenterInfo:
    """Reads ``segmenter.json``; the error names the file and what is wrong with it."""
    path = settled(folder) / INFO_FILE
    try:
        raw = json.loads(path.read_text())
        if raw["format"] != FORMAT_VERSION:
            raise InputError(f"{path} has format {raw['format']}", note=f"this version reads format {FORMAT_VERSION}")
        return SegmenterInfo(raw["step"], SegmenterConfig.from_json(raw["config"]), raw["source"], raw["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} is not a segmenter: {error}",
            hint="name the folder `checkpoint` that `msdm-train segment train` wrote",
        ) from error


def load_segmenter_network(folder: Path) -> tuple[Plain | Lite0, SegmenterInfo]:
    """The averaged network, in evaluation mode on the CPU.

    Raises:
        InputError: no segmenter, or one whose weights are not those that its JSON was written for.
    """
    info, path = read_segmenter_info(folder), settled(folder) / WEIGHTS_FILE
    weights = read_tensors(path)
    if file_sha256(path) != info.sha256:
        raise InputError(f"{path} is not as it was written", note=f"SHA-256 should be {info.sha256}", hint="copy again")
    network = build(info.config.architecture)
    network.load_state_dict(weights)
    return network.eval(), info

"""A tiny model with random weights, its checkpoint, and the bundle exported from it, once a session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from msdm_engine.bundle.reader import Bundle
from msdm_export.bundle_writer import export_bundle
from msdm_export.precision.variants import add_precision
from msdm_train.data.pack import Pack, write_pack
from msdm_train.data.reader import Field, Region
from msdm_train.data.vocabulary import train_tokenizer
from msdm_train.model.config import preset
from msdm_train.model.msdm import MSDM
from msdm_train.segmentation.checkpoint import SegmenterInfo, write_segmenter
from msdm_train.segmentation.config import SegmenterConfig
from msdm_train.segmentation.network import build
from msdm_train.training.checkpoint import CheckpointInfo, write_checkpoint

TAGS = {"stain": "lilac", "architecture": "columnar", "nuclear_size": "small"}


class DrawnReader:
    """Two fields of coloured noise with square nuclei."""

    name, licence, source = "drawn", "CC0-1.0", "made by a test"

    def fields(self) -> Iterator[Field]:
        """One field for train, one for val."""
        rng = np.random.default_rng(0)
        for split in ("train", "val"):
            image = rng.integers(100, 220, (256, 256, 3), dtype=np.uint8)
            instances = np.zeros((256, 256), np.uint16)
            for label in range(1, 26):
                y, x = divmod(label - 1, 5)
                instances[10 + 48 * y : 30 + 48 * y, 10 + 48 * x : 30 + 48 * x] = label
            region = Region(0, 0, 256, 256, TAGS, "violet nuclear stain on a lilac background; small nuclei")
            yield Field(f"field-{split}", split, image, instances, (region,))


@pytest.fixture(scope="session")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed data set."""
    path = tmp_path_factory.mktemp("pack") / "drawn.safetensors"
    write_pack(DrawnReader(), path)
    return path


def random_model() -> MSDM:
    """A tiny model whose zero-initialised branches are random, so that every part matters to the result."""
    torch.manual_seed(0)
    config = replace(
        preset("tiny"), state_mean=(0.3, 0.1, 0.5, -0.5, 0.0, 0.0), state_std=(0.3, 0.4, 0.2, 0.8, 0.3, 0.3)
    )
    model = MSDM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().sum() == 0:
                parameter.normal_(std=0.1)
    return model


@pytest.fixture(scope="session")
def checkpoint(pack_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny model."""
    folder = tmp_path_factory.mktemp("run")
    pack, model = Pack(pack_path), random_model()
    train_tokenizer(pack, model.config.text.vocabulary, folder / "tokenizer.json")
    data = {
        "name": "drawn",
        "licence": "CC0-1.0",
        "source": "made by a test",
        "statistics": pack.info.statistics,
        "trained_on_fields": ["field-train"],
    }
    info = CheckpointInfo(3, model.config, data, {"config": {}, "run_step": 3, "history": []})
    write_checkpoint(folder / "checkpoint", info, model.state_dict(), folder / "tokenizer.json", None)
    return folder / "checkpoint"


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter with random weights, none of them zero."""
    torch.manual_seed(1)
    network = build("plain")
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.abs().sum() == 0:
                parameter.normal_(std=0.1)
    folder = tmp_path_factory.mktemp("segmenter") / "checkpoint"
    write_segmenter(folder, SegmenterInfo(4, SegmenterConfig(), {"fields": ["field-train"]}), network.state_dict(), {})
    return folder


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, segmenter: Path, pack_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The exported bundle with its critic, opened and verified."""
    out = tmp_path_factory.mktemp("export") / "bundle"
    export_bundle(checkpoint, out, name="tiny", pack=pack_path, critic=segmenter)
    return Bundle.open(out)


@pytest.fixture(scope="session")
def typed_bundle(bundle: Bundle, pack_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bundle with FP16 and BF16 graphs."""
    out = tmp_path_factory.mktemp("typed") / "bundle"
    add_precision(bundle.folder, "fp16", out=out, pack=pack_path)
    add_precision(out, "bf16", pack=pack_path)
    return out

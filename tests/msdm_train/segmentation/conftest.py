"""A segmenter that was trained for a few steps, and the pack it has seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from msdm_train.data.pack import Pack
from msdm_train.segmentation.config import SegmenterConfig
from msdm_train.segmentation.sources import PackFields
from msdm_train.segmentation.train import train_segmenter


@pytest.fixture(scope="session")
def trained(opened_pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of 40 steps on field t1: enough for squares that are darker than their background."""
    config = SegmenterConfig(steps=40, batch=4, crop_px=32, learning_rate=5e-3, warmup_steps=5)
    return train_segmenter(PackFields(opened_pack, ["t1"]), config, tmp_path_factory.mktemp("trained") / "run")

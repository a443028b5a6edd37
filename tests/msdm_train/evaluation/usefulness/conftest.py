"""Drawn fields with columnar and other regions, and a protocol of seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from msdm_engine.layouts import LayoutRequest, draw_layout
from msdm_train.data.pack import write_pack
from msdm_train.data.reader import Field, Region
from msdm_train.evaluation.usefulness import effects
from msdm_train.evaluation.usefulness.config import GeneratorConfig, Protocol
from msdm_train.segmentation.config import SegmenterConfig
from msdm_train.training.config import FitConfig

SIDE_PX = 128

#: split and kinds of the regions, side by side, of each field
FIELDS = {
    "c1": ("train", ("columnar",)),
    "c2": ("train", ("columnar", "round")),
    "c3": ("val", ("columnar",)),
    "r1": ("train", ("round",)),
    "r2": ("train", ("round",)),
    "r3": ("val", ("round",)),
    "t1": ("test", ("columnar",)),
}


class DrawnFields:
    """Reader of fields that are drawn: layouts, nuclei darker than the background."""

    name, licence, source = "drawn", "CC0-1.0", "made by a test"

    def fields(self) -> Iterator[Field]:
        """The fields of :data:`FIELDS`."""
        for number, (name, (split, kinds)) in enumerate(FIELDS.items()):
            maps, regions, last = [], [], 0
            for at, kind in enumerate(kinds):
                labels = draw_layout(LayoutRequest(kind, SIDE_PX, SIDE_PX, seed=number, index=at, area_px=90.0))
                maps.append(np.where(labels > 0, labels + last, 0).astype(np.uint16))
                last += int(labels.max())
                tags = {"architecture": kind, "stain": "lilac"}
                regions.append(Region(0, at * SIDE_PX, SIDE_PX, (at + 1) * SIDE_PX, tags, f"{kind} nuclei"))
            instances = np.concatenate(maps, axis=1)
            image = np.random.default_rng(number).integers(170, 230, (*instances.shape, 3)).astype(np.uint8)
            image[instances > 0] -= np.array([90, 110, 40], np.uint8)
            yield Field(name, split, image, instances, tuple(regions))


@pytest.fixture(scope="session")
def drawn_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three columnar fields and three others to deal into folds, and one of test."""
    path = tmp_path_factory.mktemp("drawn") / "drawn.safetensors"
    write_pack(DrawnFields(), path)
    return path


@pytest.fixture(scope="session")
def quick_protocol() -> Callable[..., Protocol]:
    """A protocol of a second a part: ``quick_protocol(seeds=1)``."""

    def make(*, seeds: int = 1, segmenter_steps: int = 2) -> Protocol:
        fit = FitConfig(steps=2, batch=2, crop_px=32, warmup_steps=1, save_every=1)
        generator = GeneratorConfig("tiny", fit, pairs=4, side_px=64, sampling_steps=2)
        segmenter = SegmenterConfig("plain", steps=segmenter_steps, batch=2, crop_px=32, save_every=1)
        return Protocol(3, (0.5,), seeds, 0.25, generator, segmenter)

    return make


@pytest.fixture(autouse=True)
def few_resamplings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test looks at the width of an interval."""
    monkeypatch.setattr(effects, "RESAMPLINGS", 40)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of several threads are added in an order of their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()

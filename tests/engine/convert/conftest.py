"""Small sets written by the engine's own writer: hard masks, drawn layouts, random pictures; no bundle is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine.conditions.colour import Colour, RegionColour
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.layouts import LayoutRequest, draw_layout
from msdm_engine.output.pair_set import PairSet
from msdm_engine.pairs import Pair, PairRequest

WriteSet = Callable[..., Path]

HEADER: dict[str, Any] = {
    "notice": "synthetic",
    "bundle": {"name": "drawn-bundle", "sha256": "ab" * 32},
    "data": {"name": "drawn", "licence": "CC0-1.0", "source": "made by a test, größer"},
    "provenance": {"Software": "msdm", "Comment": "synthetic"},
}


def hard_mask(height: int = 48, width: int = 64) -> np.ndarray:
    """Every case that a format can get wrong, each as a nucleus of its own."""
    mask = np.zeros((height, width), np.uint16)
    mask[0:6, 0:7] = 1  # at a corner of the picture
    mask[0:6, 7:12] = 2  # touches nucleus 1 along a side
    mask[6:9, 12:15] = 3  # touches nucleus 2 at a corner
    mask[20:29, 4:15] = 4  # with a hole,
    mask[23:26, 7:12] = 0
    mask[24, 8:10] = 5  # in which another nucleus lies
    mask[20:24, 20:24] = 6  # in pieces: two that meet at a corner, one far away
    mask[24:28, 24:28] = 6
    mask[40:42, 30:33] = 6
    mask[10, 40] = 7  # one pixel
    mask[12, 42:47] = 8  # one pixel high
    mask[14:20, 48] = 9  # one pixel wide
    mask[height - 1, width - 1] = 10  # one pixel, at the last corner
    mask[30:38, 0:3] = 11  # cut by the left border
    mask[44:height, 20:30] = 12  # cut by the lower border
    mask[30:33, 40:43] = 13  # a hole that meets the outside at a corner
    mask[31, 41] = mask[32, 42] = 0
    mask[36:41, 46:51] = 14  # two holes that meet at a corner
    mask[37, 47] = mask[38, 48] = 0
    for y, x in np.ndindex(4, 4):  # a chessboard: eight pieces that meet at corners
        if (y + x) % 2 == 0:
            mask[2 + y, 30 + x] = 15
    mask[0, 20:width] = 16  # along the whole border, and through it from column to column
    mask[0:30, width - 1] = 16
    return mask


def noise_mask(height: int, width: int, seed: int, nuclei: int = 5) -> np.ndarray:
    """Each pixel of its own: all corners and crossings that pixels can form."""
    mask: np.ndarray = np.random.default_rng(seed).integers(0, nuclei + 1, (height, width)).astype(np.uint16)
    return mask


@pytest.fixture(scope="session")
def masks() -> list[np.ndarray]:
    """Of one size: hard cases, drawn layouts, noise, no nucleus, one that fills the picture, labels with gaps."""
    shape = (64, 80)
    drawn = [draw_layout(LayoutRequest(kind, *shape, seed=3)) for kind in ("round", "columnar")]
    gaps = np.zeros(shape, np.uint16)
    gaps[3:9, 4:9], gaps[20:30, 30:44] = 7, 65535
    return [
        hard_mask(*shape),
        *drawn,
        noise_mask(*shape, 1),
        np.zeros(shape, np.uint16),
        np.full(shape, 1, np.uint16),
        gaps,
    ]


def picture_for(mask: np.ndarray, seed: int) -> np.ndarray:
    picture: np.ndarray = np.random.default_rng(seed).integers(0, 256, (*mask.shape, 3)).astype(np.uint8)
    return picture


@pytest.fixture(scope="session")
def pictures(masks: list[np.ndarray]) -> list[np.ndarray]:
    """The picture of each mask: random, so that no two pixels may be exchanged."""
    return [picture_for(mask, i) for i, mask in enumerate(masks)]


@pytest.fixture(scope="session")
def write_set() -> WriteSet:
    """Writes a set of these masks; every second pair has no foreground colour, as a request may leave it open."""

    def write(folder: Path, masks: Sequence[np.ndarray], seed: int = 2**64 - 1, **header: Any) -> Path:
        with PairSet(folder, {**HEADER, "pairs": len(masks), **header}) as pairs:
            for i, mask in enumerate(masks):
                foreground = RegionColour((100.0, 50.5, 190.0), (20.0, 30.0, 10.0)) if i % 2 == 0 else None
                request = PairRequest(
                    i,
                    seed,
                    mask.shape[0],
                    mask.shape[1],
                    colour=Colour(foreground, RegionColour((200.0, 190.0, 210.0), (9.0, 9.0, 9.0))),
                    metadata=Metadata(indication="Kolonkarzinom, groß") if i == 0 else Metadata(description="violet"),
                    morphology="layout round",
                )
                pairs.add(Pair(request, picture_for(mask, i), mask))
        return folder

    return write


@pytest.fixture(scope="session")
def one_size_set(masks: list[np.ndarray], write_set: WriteSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of ``masks`` and ``pictures``; tests read it only."""
    return write_set(tmp_path_factory.mktemp("sets") / "one-size", masks)

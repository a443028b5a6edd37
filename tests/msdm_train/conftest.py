"""Drawn data: fields with square nuclei, and packs of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from msdm_train.data.pack import Pack, write_pack
from msdm_train.data.reader import Field, Region

TAGS = {"architecture": "round", "stain": "lilac"}
DrawField = Callable[..., Field]
PackOf = Callable[..., Path]


class DrawnReader:
    """Fields that a test made, in memory."""

    name, licence, source = "drawn", "CC0-1.0", "made by a test"

    def __init__(self, given: Sequence[Field]) -> None:
        self._given = given

    def fields(self) -> Iterator[Field]:
        """The fields as they were given."""
        yield from self._given


def _draw_field(
    name: str, split: str, side_px: int = 64, *, description: str = "violet nuclei; small nuclei", seed: int = 0
) -> Field:
    """Coloured noise, darker inside square nuclei of 8 px that stand 16 px apart."""
    rng = np.random.default_rng(seed)
    instances = np.zeros((side_px, side_px), np.uint16)
    corners = [(y, x) for y in range(4, side_px - 8, 16) for x in range(4, side_px - 8, 16)]
    for label, (y, x) in enumerate(corners, start=1):
        instances[y : y + 8, x : x + 8] = label
    image = rng.integers(150, 230, (side_px, side_px, 3), dtype=np.uint8)
    image[instances > 0] -= np.array([60, 90, 20], np.uint8)
    region = Region(0, 0, side_px, side_px, TAGS, description)
    return Field(name, split, image, instances, (region,))


@pytest.fixture(scope="session")
def draw_field() -> DrawField:
    """Draws a field of one region: ``draw_field(name, split, side_px, description=, seed=)``."""
    return _draw_field


@pytest.fixture
def pack_of(tmp_path: Path) -> PackOf:
    """Packs fields: ``pack_of(field, ...)`` -> path of the pack."""

    def make(*fields: Field) -> Path:
        path = tmp_path / "drawn.safetensors"
        write_pack(DrawnReader(fields), path)
        return path

    return make


@pytest.fixture(scope="session")
def small_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two train fields, one of val, one of test."""
    path = tmp_path_factory.mktemp("pack") / "small.safetensors"
    names = (("t1", "train"), ("t2", "train"), ("v", "val"), ("e", "test"))
    write_pack(DrawnReader([_draw_field(name, split, seed=i) for i, (name, split) in enumerate(names)]), path)
    return path


@pytest.fixture(scope="session")
def opened_pack(small_pack: Path) -> Pack:
    """The same, opened."""
    return Pack(small_pack)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of several threads are added in an order of their own, and bits are compared here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

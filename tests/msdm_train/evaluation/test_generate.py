from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msdm_engine.bundle.reader import Bundle
from msdm_engine.engine import Engine
from msdm_engine.errors import OutputError
from msdm_engine.pairs import PairRequest
from msdm_engine.sampling.guidance import Guidance
from msdm_train.data.crops import Crop, windows
from msdm_train.data.pack import Pack
from msdm_train.evaluation.changes import without_colour
from msdm_train.evaluation.generate import CHUNK, Generator, evenly


@pytest.fixture
def generator(bundle_folder: Path, tmp_path: Path, painter: Any) -> Iterator[Generator]:
    with Engine.open(Bundle.open(bundle_folder)) as engine:
        yield Generator(engine, tmp_path / "generated", lambda _: None)


@pytest.fixture
def crops(opened_pack: Pack) -> list[Crop]:
    return windows(opened_pack, "train", 32, stride_px=8)[:32]


def same(one: list[Any], other: list[Any]) -> bool:
    def told(samples: list[Any]) -> list[tuple[bytes, bytes, int, int]]:
        return [(s.image.tobytes(), s.instances.tobytes(), s.crop, s.seed) for s in samples]

    return told(one) == told(other)


def test_a_set_is_made_once_and_again_when_anything_changes(
    generator: Generator, crops: list[Crop], painter: Any
) -> None:
    first = generator.set_of("a", crops[:4], [0, 1])
    assert [(s.crop, s.seed) for s in first] == [(i, seed) for seed in (0, 1) for i in range(4)]
    runs = painter.runs
    assert same(generator.set_of("a", crops[:4], [0, 1]), first)
    assert painter.runs == runs
    for made in (
        lambda: generator.set_of("a", crops[:4], [0, 2]),
        lambda: generator.set_of("a", crops[1:5], [0, 1]),
        lambda: generator.set_of("a", crops[:4], [0, 1], without_colour),
    ):
        made()
        assert painter.runs > runs
        runs = painter.runs
    generator.guidance = Guidance(colour=0.5)
    generator.set_of("a", crops[:4], [0, 1], without_colour)
    assert painter.runs > runs


def test_an_interrupted_set_is_completed_to_the_same_pictures(
    generator: Generator, crops: list[Crop], painter: Any, tmp_path: Path
) -> None:
    def breaks(request: PairRequest, crop: Crop) -> PairRequest:
        return request

    whole = generator.set_of("whole", crops, [0])
    needed = painter.runs
    sample = generator._sample
    calls: list[int] = []

    def once(requests: list[PairRequest]) -> Any:
        if calls:
            raise KeyboardInterrupt
        calls.append(len(requests))
        return sample(requests)

    generator._sample = once  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        generator.set_of("broken", crops, [0], breaks)
    generator._sample = sample  # type: ignore[method-assign]
    before = painter.runs
    assert same(generator.set_of("broken", crops, [0], breaks), whole)
    # A chunk of 16 pairs was kept: half of the work.
    assert (calls, painter.runs - before) == ([CHUNK], needed // 2)
    assert sorted(p.name for p in (tmp_path / "generated").iterdir()) == ["broken.npz", "whole.npz"]


def test_a_folder_that_cannot_be_written(generator: Generator, crops: list[Crop], tmp_path: Path) -> None:
    generator.folder = tmp_path / "bundle" / "manifest.json"
    with pytest.raises(OutputError, match="cannot be written"):
        generator.set_of("a", crops[:1], [0])


def test_evenly_spaced() -> None:
    assert evenly(3, 5).tolist() == [0, 1, 2]
    assert evenly(10, 2).tolist() == [2, 7]  # the middles of both halves

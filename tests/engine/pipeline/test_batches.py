"""Requests whose sizes alternate fill their batches, within bounds, and their pairs come in order."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine import Bundle, Engine, Pair, PairRequest
from msdm_engine.contract import DENOISER
from msdm_engine.errors import DeviceMemoryError, RequestError
from msdm_engine.output.job import generate
from msdm_engine.output.merge import merge_shards
from msdm_engine.output.shard import Shard
from msdm_engine.pipeline import batches as module
from msdm_engine.pipeline.batches import BATCHES_WAITING, Batches, Placed, gathered, in_order
from msdm_engine.requests.request import GroupRequest, Masks, SetRequest


def asked(index: int, side: int = 16) -> PairRequest:
    return PairRequest(index, 3, side, side)


def taken(batches: Batches) -> list[tuple[int, ...]]:
    found = []
    while batch := batches.next():
        assert len({request.height_px for request in batch.requests}) == 1
        assert batch.places == tuple(request.index for request in batch.requests)
        found.append(batch.places)
    return found


def test_sizes_that_alternate_fill_their_batches() -> None:
    requests = [asked(i, 16 + 16 * (i % 2)) for i in range(10)]
    assert taken(Batches(requests, 2, {})) == [(0, 2), (1, 3), (4, 6), (5, 7), (8,), (9,)]
    assert taken(Batches(requests, 4, {(48, 48): 1})) == [(0, 2, 4, 6), (1, 3, 5, 7), (8,), (9,)]
    assert taken(Batches(requests, 4, {(16, 16): 1})) == [(0,), (1, 3, 5, 7), (2,), (4,), (6,), (8,), (9,)]
    assert taken(Batches(requests, 2, {}, neighbours=True)) == [(i,) for i in range(10)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_each_request_is_in_one_batch_and_the_oldest_begins_the_next(batch: int, seed: int) -> None:
    draw = random.Random(seed)
    requests = [asked(i, draw.choice((16, 16, 32, 48))) for i in range(60)]
    found = taken(Batches(requests, batch, {}))
    left = set(range(60))
    for places in found:
        assert places[0] == min(left)
        left -= set(places)
    assert not left and sum(map(len, found)) == 60
    sizes = [(request.height_px, request.width_px) for request in requests]
    assert [count for _, count in gathered(sizes, batch)] == [len(places) for places in found]


def test_the_look_ahead_is_bounded_in_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small picture among many large ones: it waits for others of its size until enough large ones do."""
    read: list[int] = []

    def requests() -> Iterator[PairRequest]:
        for index in range(1000):
            read.append(index)
            yield asked(index, 32 if index else 16)

    batches = Batches(requests(), 2, {})
    first = batches.next()
    assert first is not None and first.places == (0,)
    assert len(read) == 1 + 2 * BATCHES_WAITING
    assert [batch.places for batch in (batches.next(), batches.next()) if batch] == [(1, 2), (3, 4)]
    assert len(read) == 1 + 2 * BATCHES_WAITING  # those that wait are taken first
    monkeypatch.setattr(module, "MAX_WAITING_PX", 3 * 32 * 32)
    read.clear()
    assert Batches(requests(), 2, {}).next()
    assert len(read) == 1 + 3


def test_nothing_is_read_beyond_a_batch_that_is_full() -> None:
    read: list[int] = []
    batches = Batches((asked(i) for i in range(9) if not read.append(i)), 3, {})  # type: ignore[func-returns-value]
    batches.next()
    assert read == [0, 1, 2]


def test_an_error_of_the_requests_comes_last() -> None:
    def requests() -> Iterator[PairRequest]:
        yield from (asked(i, 16 + 16 * (i % 2)) for i in range(5))
        raise RequestError("the sixth")

    batches = Batches(requests(), 2, {})
    assert [batch.places for batch in (batches.next(), batches.next(), batches.next()) if batch] == [
        (0, 2), (1, 3), (4,)
    ]  # fmt: skip
    with pytest.raises(RequestError, match="the sixth"):
        batches.next()


def test_a_batch_that_is_put_back_comes_first() -> None:
    batches = Batches([asked(i, 16 + 16 * (i % 2)) for i in range(8)], 2, {})
    first, second = batches.next(), batches.next()
    assert first is not None and second is not None
    for batch in (first, second):
        batches.put_back(batch)
    assert taken(batches) == [(0, 2), (1, 3), (4, 6), (5, 7)]


def test_pairs_wait_for_their_turn_and_closing_ends_the_sampler() -> None:
    closed: list[bool] = []

    def placed() -> Generator[Placed]:
        try:
            for place in (0, 2, 4, 1, 3):
                blank = np.zeros((16, 16, 3), np.uint8)
                yield place, Pair(asked(place), blank, blank[..., 0].astype(np.uint16))
        finally:
            closed.append(True)

    assert [pair.request.index for pair in in_order(placed())] == [0, 1, 2, 3, 4]
    pairs = in_order(placed())
    next(pairs)
    pairs.close()
    assert closed == [True, True]


def denoised(backend: Any) -> int:
    return sum(graph == DENOISER for graph, _ in backend.calls)


def test_mixed_sizes_cost_no_more_than_sorted_ones_and_give_the_same(bundle_folder: Path, fake_backend: Any) -> None:
    requests = [asked(i, (16, 32, 48)[i % 3]) for i in range(24)]
    with Engine(Bundle.open(bundle_folder), fake_backend) as engine:
        sampling = engine.bundle.manifest.sampling.changed(batch=4)
        found = list(engine.sample(requests, sampling))
        mixed = denoised(fake_backend)
        by_size = list(engine.sample(sorted(requests, key=lambda request: request.height_px), sampling))
        assert mixed == denoised(fake_backend) - mixed == sampling.steps * 24 // 4
    assert [pair.request.index for pair in found] == list(range(24))
    expected = {pair.request.index: pair.image for pair in by_size}
    assert all(np.array_equal(pair.image, expected[pair.request.index]) for pair in found)


def test_memory_that_ends_among_mixed_sizes_loses_and_doubles_nothing(bundle_folder: Path, fake_backend: Any) -> None:
    whole, calls = fake_backend.run, iter(range(1, 10**6))

    def run(graph: str, inputs: dict[str, np.ndarray]) -> Any:
        if graph == DENOISER and next(calls) == 5:
            raise DeviceMemoryError("no memory left")
        return whole(graph, inputs)

    fake_backend.run = run
    with Engine(Bundle.open(bundle_folder), fake_backend) as engine:
        sampling = engine.bundle.manifest.sampling.changed(batch=4)
        found = list(engine.sample([asked(i, 16 + 16 * (i % 2)) for i in range(20)], sampling))
    assert [pair.request.index for pair in found] == list(range(20))
    # The second batch failed: of the size 32, which is halved from then on.
    assert {pair.halved_batch for pair in found if pair.image.shape[0] == 32} == {2}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def mixed_masks(tmp_path: Path) -> SetRequest:
    """A group whose masks alternate between two sizes."""
    import cv2

    folder = tmp_path / "masks"
    folder.mkdir()
    for number in range(2):
        mask = np.zeros((32 + 16 * number,) * 2, np.uint16)
        mask[4:12, 5:14] = 1
        assert cv2.imwrite(str(folder / f"{number}.png"), mask)
    return SetRequest((GroupRequest(Masks(folder), count=13),), seed=2)


def test_a_mixed_set_is_the_same_in_shards_and_resumed(mixed_masks: SetRequest, tiny: Bundle, tmp_path: Path) -> None:
    """On ONNX Runtime: a pair of the tiny bundle has the same bytes in whichever batch it is computed."""
    options: dict[str, Any] = {"bundle": tiny.folder, "threads": 1, "batch": 4}
    generate(mixed_masks, tmp_path / "whole", **options)
    parts = [tmp_path / f"part{i}" for i in range(3)]
    for i, part in enumerate(parts):
        generate(mixed_masks, part, shard=Shard(i, 3), **options)
    merge_shards(parts, tmp_path / "merged")
    assert tree(tmp_path / "merged") == tree(tmp_path / "whole")
    records = (tmp_path / "whole" / "manifest.jsonl").read_text().splitlines(keepends=True)
    resumed = tmp_path / "resumed"
    generate(mixed_masks, resumed, **options)
    (resumed / "manifest.jsonl").write_text("".join(records[:3] + records[5:6] + records[8:]))
    assert generate(mixed_masks, resumed, resume=True, **options) == 4
    assert tree(resumed) == tree(tmp_path / "whole")


def test_a_set_of_mixed_sizes_side_by_side(
    mixed_masks: SetRequest, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for parallel in (1, 2):
        generate(mixed_masks, tmp_path / str(parallel), bundle=tiny.folder, threads=1, parallel=parallel, batch=4)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")

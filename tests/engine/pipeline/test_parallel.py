"""Batches side by side: the same pairs in the same order, errors in their place, and no thread left."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine import Bundle, Engine, Pair, PairRequest
from msdm_engine.backends.onnxruntime import OnnxRuntimeBackend
from msdm_engine.errors import MsdmError, NumericsError, RequestError
from msdm_engine.pipeline import parallel
from msdm_engine.pipeline.batches import Batches, Placed, in_order
from msdm_engine.pipeline.parallel import AHEAD, share_cores, side_by_side


def asked(index: int, side: int = 16) -> PairRequest:
    return PairRequest(index=index, seed=5, height_px=side, width_px=side)


def blank(request: PairRequest) -> Pair:
    image = np.zeros((request.height_px, request.width_px, 3), np.uint8)
    return Pair(request, image, image[..., 0].astype(np.uint16))


def sampled(requests: Iterator[PairRequest]) -> Iterator[Placed]:
    for place, request in enumerate(requests):
        if request.index == 13:
            raise NumericsError("pair 13")
        time.sleep(0.001 * (request.index % 3))  # members finish out of step
        yield place, blank(request)


def numbers(placed: Generator[Placed]) -> list[int]:
    return [pair.request.index for pair in in_order(placed)]


def until_error(batches: Batches) -> tuple[list[int], Exception | None]:
    found: list[int] = []
    try:
        for _, pair in side_by_side([sampled] * 2, batches):
            found.append(pair.request.index)
    except MsdmError as error:
        return found, error
    return found, None


def members() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("msdm-member")]


@pytest.mark.parametrize("count", [0, 1, 4, 11])
def test_pairs_come_in_the_order_of_their_requests(count: int) -> None:
    batches = Batches(map(asked, range(20, 20 + count)), 2, {})
    assert numbers(side_by_side([sampled] * 3, batches)) == list(range(20, 20 + count))
    assert not members()


def test_sizes_that_change_do_not_hold_anything_up() -> None:
    requests = [asked(20 + i, (16, 32, 48)[i % 3]) for i in range(20)]
    assert numbers(side_by_side([sampled] * 2, Batches(requests, 4, {}))) == list(range(20, 40))


def test_an_error_comes_after_the_pairs_before_it() -> None:
    found, error = until_error(Batches(map(asked, range(20)), 2, {}))
    # Pair 12 shares a batch with the one that fails, and was sampled before it.
    assert found == list(range(13))
    assert isinstance(error, NumericsError)
    assert not members()


def test_a_member_that_has_failed_is_fed_without_harm() -> None:
    member = parallel.Member(sampled, "msdm-member-test")
    member.feed([asked(13)])
    member.join()
    member.feed([asked(14)])
    with pytest.raises(NumericsError):
        member.take()


def test_an_error_of_the_requests_comes_after_their_pairs() -> None:
    def requests() -> Iterator[PairRequest]:
        yield from map(asked, range(5))
        raise RequestError("the sixth")

    found, error = until_error(Batches(requests(), 2, {}))
    assert found == list(range(5))
    assert isinstance(error, RequestError)


def test_requests_are_taken_a_bounded_way_ahead() -> None:
    taken: list[int] = []

    def requests() -> Iterator[PairRequest]:
        for index in range(100, 1000):
            taken.append(index)
            yield asked(index)

    with closing(side_by_side([sampled] * 2, Batches(requests(), 2, {}))) as pairs:
        next(pairs)
        assert len(taken) <= 2 * AHEAD * 2  # members, batches of each, pairs of a batch
    assert not members()


@pytest.mark.parametrize(
    ("cores", "threads", "side", "expected"),
    [(4, 0, 0, (1, 4)), (4, 2, 0, (2, 2)), (4, 3, 0, (3, 1)), (4, 8, 0, (8, 1)), (4, 0, 2, (2, 2)), (2, 1, 1, (1, 1))],
)
def test_cores_are_shared(
    cores: int, threads: int, side: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: cores)
    assert share_cores(threads, side) == expected


@pytest.mark.parametrize(("threads", "side"), [(-1, 0), (0, -1), (5000, 0)])
def test_numbers_out_of_range_are_refused(threads: int, side: int) -> None:
    with pytest.raises(RequestError, match="0 \\(the engine chooses\\) to"):
        share_cores(threads, side)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_reference_gives_the_same_pixels_side_by_side(reference: Bundle, backend: str) -> None:
    pytest.importorskip(backend)
    sampling = reference.manifest.sampling.changed(steps=2, batch=1)
    requests = [PairRequest(index=i, seed=9, height_px=32, width_px=32) for i in range(5)]
    found = {}
    for count in (1, 3):
        with Engine.open(reference, backend=backend, threads=1, parallel=count) as engine:
            found[count] = np.stack([pair.image for pair in engine.sample(requests, sampling)])
    assert np.array_equal(found[1], found[3])
    assert not members()


@pytest.mark.parametrize(("threads", "side", "spins"), [(1, 2, True), (2, 1, True), (2, 2, False)])
def test_threads_do_not_spin_on_the_cores_of_other_batches(threads: int, side: int, spins: bool, tiny: Bundle) -> None:
    """ONNX Runtime spins unless it is told not to; a batch of one thread has none that could."""
    with Engine.open(tiny, threads=threads, parallel=side) as engine:
        backend = engine.backend
        assert isinstance(backend, OnnxRuntimeBackend)
        options = backend._session("denoiser").get_session_options()
        assert options.intra_op_num_threads == threads
        key = "session.intra_op.allow_spinning"
        if spins:
            with pytest.raises(RuntimeError, match=key):  # it was not set
                options.get_session_config_entry(key)
        else:
            assert options.get_session_config_entry(key) == "0"


def test_the_times_of_batches_side_by_side_are_summed(bundle_folder: Path, fake_backend: Any) -> None:
    with Engine(Bundle.open(bundle_folder), fake_backend, parallel=2) as engine:
        list(engine.sample([asked(i) for i in range(8)], engine.bundle.manifest.sampling.changed(batch=2)))
        each = [runtime.times()["compute"].runs for runtime in (engine._runtime, *engine._beside)]
        assert min(each) > 0 and engine.times()["compute"].runs == sum(each)

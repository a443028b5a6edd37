"""The pipeline against the plain sampler, to the byte; and what becomes of it when things go wrong."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from msdm_engine import Bundle, Colour, Engine, Metadata, Pair, PairRequest, RegionColour
from msdm_engine.sampling.guidance import NO_GUIDANCE, Guidance
from msdm_engine.sampling.schedule import SOLVERS

COLOUR = Colour(RegionColour((100.0, 50.0, 190.0), (9.0,) * 3))


def asked(index: int, height: int = 32, width: int = 32, *, follows: bool = True, seed: int = 5) -> PairRequest:
    mask = np.zeros((height, width), np.uint16)
    mask[4 : 12 + index % 3, 5:14] = 1
    text = Metadata(description=("violet", "round nuclei", "")[index % 3])
    return PairRequest(index, seed, height, width, mask if follows else None, COLOUR, text)


def same(pair: Pair, expected: tuple[np.ndarray, np.ndarray]) -> bool:
    return np.array_equal(pair.image, expected[0]) and np.array_equal(pair.instances, expected[1])


GUIDANCES = {
    "none": NO_GUIDANCE,
    "text": Guidance(text=0.5),
    "kept": Guidance(overall=0.7),
    "all in an interval": Guidance(0.5, 0.3, 0.7, sigma_low=0.05, sigma_high=10),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("guidance", GUIDANCES)
def test_pairs_are_those_of_the_plain_sampler(solver: str, guidance: str, tiny_engine: Engine, plain: Any) -> None:
    sampling = tiny_engine.bundle.manifest.sampling.changed(steps=7, solver=solver, batch=3)
    requests = [asked(index, follows=index % 2 == 0) for index in range(8)]  # the last batch is short
    expected = plain(tiny_engine, requests, sampling, GUIDANCES[guidance])
    found = list(tiny_engine.sample(requests, sampling, GUIDANCES[guidance]))
    assert [pair.request.index for pair in found] == list(range(8))
    assert all(map(same, found, expected))
    assert all(pair.seen is not None and pair.halved_batch is None for pair in found)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps(steps: int, tiny_engine: Engine, plain: Any) -> None:
    sampling = tiny_engine.bundle.manifest.sampling.changed(steps=steps, solver="euler-ancestral")
    requests = [asked(index) for index in range(5)]
    expected = plain(tiny_engine, requests, sampling, NO_GUIDANCE)
    assert all(map(same, tiny_engine.sample(requests, sampling), expected))


def test_the_reference_bundle_too(reference: Bundle, plain: Any) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra cpu or gpu")
    sampling = reference.manifest.sampling.changed(steps=2, batch=2)
    requests = [asked(index, 48, 64, follows=index != 1) for index in range(3)]
    guidance = Guidance(text=0.5, overall=0.5)
    with Engine.open(reference, threads=1) as engine:
        expected = plain(engine, requests, sampling, guidance)
        assert all(map(same, engine.sample(requests, sampling, guidance), expected))


def test_100_runs_among_others_give_the_same_bytes(tiny_engine: Engine) -> None:
    """Other sizes, solvers, guidance, neighbours and places in the batch, and runs that are not finished."""
    wanted = asked(7)
    sampling = tiny_engine.bundle.manifest.sampling.changed(steps=3, solver="euler-ancestral", batch=2)
    (first,) = tiny_engine.sample([wanted], sampling)
    for number in range(100):
        others = [asked(1000 + number + i, (32, 16, 48)[i % 3], seed=number) for i in range(number % 4)]
        requests = [*others[: number % 3], wanted, *others[number % 3 :]]
        if number % 9 == 0:
            next(tiny_engine.sample(others or [wanted], sampling.changed(steps=4), Guidance(text=1.0)))
        (again,) = [pair for pair in tiny_engine.sample(requests, sampling) if pair.request.index == 7]
        assert same(again, (first.image, first.instances))
        assert again.agreement == first.agreement


def test_iterators_in_turns_do_not_disturb_each_other(tiny_engine: Engine) -> None:
    requests = [[asked(index, seed=seed) for index in range(7)] for seed in (1, 2)]
    alone = [list(tiny_engine.sample(each)) for each in requests]
    turns = list(zip(*(tiny_engine.sample(each) for each in requests), strict=True))
    for one, other in zip(turns, zip(*alone, strict=True), strict=True):
        assert all(same(a, (b.image, b.instances)) for a, b in zip(one, other, strict=True))


def test_a_lane_is_opened_once_for_each_shape(tiny_engine: Engine) -> None:
    runtime = tiny_engine._runtime
    for _ in range(3):
        list(tiny_engine.sample([asked(index, (32, 48)[index // 2 % 2]) for index in range(8)]))
    assert runtime.opened == 2


def test_threads_begin_with_the_first_pair_and_end_with_the_engine(tiny: Bundle) -> None:
    before = threading.active_count()
    with Engine.open(tiny, threads=1) as engine:
        assert threading.active_count() == before
        pairs = engine.sample(asked(index) for index in range(10**6))
        next(pairs)
        assert threading.active_count() == before + 3  # upload, compute, download
    assert threading.active_count() == before


def test_an_engine_that_is_forgotten_leaves_no_thread(tiny: Bundle) -> None:
    before = threading.active_count()
    engine = Engine.open(tiny, threads=1)
    list(engine.sample([asked(0)]))
    del engine
    gc.collect()  # lanes and their work know one another
    assert threading.active_count() == before


class Interrupting:
    """A backend that is interrupted, or fails, in one call of one graph."""

    def __init__(self, backend: Any, graph: str, call: int, error: BaseException) -> None:
        self.identity, self._backend, self._graph = backend.identity, backend, graph
        self._calls, self._error = call, error

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> Any:
        self._calls -= graph == self._graph
        if graph == self._graph and self._calls == 0:
            raise self._error
        return self._backend.run(graph, inputs)

    def close(self) -> None:
        """The backend is another engine's."""


@pytest.mark.parametrize("graph", ["conditioner", "denoiser", "critic"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_batches_before_one_that_fails_are_handed_over(
    graph: str, batch: int, tiny: Bundle, tiny_engine: Engine
) -> None:
    steps = tiny.manifest.sampling.steps
    call = batch * steps - 1 if graph == "denoiser" else batch
    failing = Interrupting(tiny_engine.backend, graph, call, ZeroDivisionError(f"in {graph}"))
    found: list[Pair] = []

    def collect(pairs: Iterator[Pair]) -> None:
        for pair in pairs:
            found.append(pair)

    with Engine(tiny, failing) as engine:
        requests = [asked(index) for index in range(9)]
        with pytest.raises(ZeroDivisionError, match=f"in {graph}"):
            collect(engine.sample(requests))
        assert [pair.request.index for pair in found] == list(range(2 * (batch - 1)))
        # Nothing of it is left for what comes later.
        again = list(engine.sample(requests))
    expected = list(tiny_engine.sample(requests))
    assert all(same(a, (b.image, b.instances)) for a, b in zip(again, expected, strict=True))

"""What a step costs a CUDA device in calls, counted on the real device module over a rehearsed runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine import Bundle, Engine, Pair, PairRequest
from msdm_engine.contract import DENOISER
from msdm_engine.devices.contract import Work
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.rehearsal.backends import RehearsedBackend
from msdm_engine.rehearsal.cuda import RehearsedCuda
from msdm_engine.sampling.guidance import Guidance

#: Three segments: one branch, four, one.
GUIDED = Guidance(0.5, 0.3, 0.7, sigma_low=0.05, sigma_high=10)
STEPS, BATCH = 6, 2
ALLOCATE = ("cudaMalloc", "cudaMallocFromPoolAsync", "cudaHostAlloc", "cudaFree", "cudaFreeAsync", "cudaFreeHost")
WAIT = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaEventQuery")


@pytest.fixture
def runtime() -> RehearsedCuda:
    return RehearsedCuda()


@pytest.fixture
def engine(critic_folder: Path, fake_backend: Any, runtime: RehearsedCuda) -> Iterator[Engine]:
    bundle = Bundle.open(critic_folder)
    with Engine(bundle, RehearsedBackend(fake_backend, bundle, runtime), CudaDevice(runtime=runtime)) as opened:
        yield opened


def sampled(engine: Engine, count: int, solver: str = "euler-ancestral") -> Iterator[Pair]:
    sampling = engine.bundle.manifest.sampling.changed(steps=STEPS, solver=solver, batch=BATCH)
    return engine.sample([PairRequest(index, 3, 16, 16) for index in range(count)], sampling, GUIDED)


@pytest.mark.parametrize("solver", ["euler-ancestral", "dpmpp-2m"])
def test_pairs_are_those_of_the_host(solver: str, engine: Engine, critic_folder: Path, fake_backend: Any) -> None:
    """Work of the rehearsed GPU is done as late as can be, so a wait that is missing would show old bytes."""
    found = list(sampled(engine, 7, solver))
    with Engine(Bundle.open(critic_folder), fake_backend) as host:
        for one, other in zip(found, sampled(host, 7, solver), strict=True):
            assert np.array_equal(one.image, other.image) and np.array_equal(one.instances, other.instances)
            assert one.agreement == other.agreement


def test_when_everything_is_open_nothing_is_allocated_any_more(engine: Engine, runtime: RehearsedCuda) -> None:
    list(sampled(engine, 5))
    runtime.calls.clear()
    list(sampled(engine, 9))
    counts = Counter(call.name for call in runtime.calls)
    assert not {name for name in counts if name.startswith(ALLOCATE)}
    assert not {name for name in counts if "Create" in name or "Capture" in name or "Instantiate" in name}


@pytest.mark.parametrize("solver", ["euler-ancestral", "dpmpp-2m"])
def test_a_trajectory_is_three_launches_which_copy_and_wait_for_nothing(
    solver: str, engine: Engine, runtime: RehearsedCuda, monkeypatch: pytest.MonkeyPatch, fake_backend: Any
) -> None:
    """Between noise, which goes up before, and the download of the last state there is nothing but launches."""
    list(sampled(engine, 5, solver))
    calls: list[list[str]] = []
    replay = type(engine._runtime.streams.compute).replay

    def counted(stream: Any, graph: Any) -> None:
        before = len(runtime.calls)
        replay(stream, graph)
        calls.append([call.name for call in runtime.calls[before:]])

    monkeypatch.setattr(type(engine._runtime.streams.compute), "replay", counted)
    fake_backend.calls.clear()
    list(sampled(engine, 8, solver))
    batches = 4
    assert calls == [["cudaGraphLaunch"]] * (3 * batches)
    assert sum(graph == DENOISER for graph, _ in fake_backend.calls) == batches * STEPS


def test_the_compute_stream_gets_launches_and_events_alone(engine: Engine, runtime: RehearsedCuda) -> None:
    list(sampled(engine, 5))
    compute = engine._runtime.streams.compute.handle
    runtime.calls.clear()
    list(sampled(engine, 8))
    on_compute = Counter(call.name for call in runtime.calls if compute in call.arguments)
    on_compute.pop("cudaStreamSynchronize", None)  # when the run ends
    # A batch: three segments; waits for the conditioner and for the noise of two segments; its end is recorded.
    assert on_compute == {"cudaGraphLaunch": 12, "cudaStreamWaitEvent": 12, "cudaEventRecord": 4}
    # The host waits for the state and for the critic of each batch, and for pinned rows of noise to be free again.
    waits = [call for call in runtime.calls if call.name in WAIT and call.name != "cudaStreamSynchronize"]
    assert len(waits) <= 4 * (2 + STEPS)


def test_the_order_can_be_replayed_on_a_device_that_captures_nothing(
    critic_folder: Path, fake_backend: Any, runtime: RehearsedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ONNX Runtime on a GPU: its steps are submitted one by one, in the same order."""
    bundle = Bundle.open(critic_folder)
    kernels = RehearsedBackend(fake_backend, bundle, runtime)
    bind = kernels.bind
    monkeypatch.setattr(kernels, "bind", lambda *arguments: Work(**{**vars(bind(*arguments)), "capturable": False}))
    with Engine(bundle, kernels, CudaDevice(runtime=runtime)) as engine:
        assert len(list(sampled(engine, 5))) == 5
    assert not runtime.named("cudaGraphLaunch")

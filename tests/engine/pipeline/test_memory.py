"""Memory: what is refused before it is asked for, and what is done when it ends midway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import msdm_engine.engine
from msdm_engine import Bundle, Engine, PairRequest
from msdm_engine.devices.host import HostDevice
from msdm_engine.devices.memory import HostBuffer
from msdm_engine.errors import DeviceMemoryError
from msdm_engine.output.job import generate
from msdm_engine.pipeline.memory import needed_bytes
from msdm_engine.pipeline.setting import Setting
from msdm_engine.requests.request import GroupRequest, Invent, SetRequest
from msdm_engine.sampling.guidance import Guidance


class Small(HostDevice):
    """A device with little memory, for the estimate and for buffers."""

    def __init__(self, free: int = 2**40, allocatable: int = 2**40) -> None:
        super().__init__()
        self.free, self.allocatable, self.made = free, allocatable, list[HostBuffer]()

    def memory(self) -> tuple[int, int]:
        return self.free, 2**40

    def buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype, place: Any = "device") -> HostBuffer:
        held = sum(buffer.nbytes for buffer in self.made if buffer.memory.bytes is not None)
        buffer = super().buffer(name, shape, dtype, place)
        if held + buffer.nbytes > self.allocatable:
            raise DeviceMemoryError(f"no memory for '{name}'")
        self.made.append(buffer)
        return buffer


def setting(engine: Engine, batch: int, guidance: Guidance | None = None) -> Setting:
    return Setting.of((32, 32), batch, engine.bundle.manifest.sampling, guidance or Guidance(), critic=True)


def requests(count: int) -> list[PairRequest]:
    return [PairRequest(index, 3, 32, 32) for index in range(count)]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("guidance", [Guidance(), Guidance(overall=1.0), Guidance(0.5, 0.5)])
def test_the_estimate_counts_every_buffer(
    batch: int, guidance: Guidance, critic_folder: Path, fake_backend: Any
) -> None:
    device = Small()
    with Engine(Bundle.open(critic_folder), fake_backend, device) as engine:
        engine._runtime.check_out(setting(engine, batch, guidance))
        needs = engine._runtime.plan(setting(engine, batch, guidance))
        held = sum(buffer.nbytes for buffer in device.made if buffer.memory.bytes is not None)
        assert needs.nbytes() == held
        assert needs.nbytes("device") + needs.nbytes("host") == held
        assert needed_bytes(needs, fake_backend, device) > held


def test_what_a_backend_says_that_it_needs_inside_is_taken(fake_engine: Engine, fake_backend: Any) -> None:
    needs = fake_engine._runtime.plan(Setting.of((32, 32), 2, fake_engine.bundle.manifest.sampling, Guidance(), False))
    fake_backend.activation_bytes = lambda graph, shapes: 1000 if graph == "denoiser" else shapes["maps"][0]
    assert needed_bytes(needs, fake_backend, fake_engine._runtime.device) == needs.nbytes() + 1000 + 2


def test_a_batch_that_does_not_fit_is_refused_with_the_largest_that_does(
    critic_folder: Path, fake_backend: Any
) -> None:
    device = Small()
    with Engine(Bundle.open(critic_folder), fake_backend, device) as engine:
        runtime = engine._runtime
        device.free = needed_bytes(runtime.plan(setting(engine, 5)), fake_backend, device)
        sampling = engine.bundle.manifest.sampling.changed(batch=8)
        with pytest.raises(DeviceMemoryError, match="batch 8 of 32 x 32 px needs about") as caught:
            list(engine.sample(requests(9), sampling))
        assert caught.value.note == "the largest batch that fits is 5"
        assert not device.made  # nothing was allocated
        assert len(list(engine.sample(requests(9), sampling.changed(batch=5)))) == 9
        device.free = 100
        with pytest.raises(DeviceMemoryError) as caught:
            list(engine.sample(requests(1), sampling.changed(batch=1, steps=4)))
        assert caught.value.note == "not even one such pair fits"


@pytest.mark.parametrize("call", [1, 2, 5, 8])
def test_memory_that_ends_midway_halves_the_batch_and_loses_nothing(
    call: int, critic_folder: Path, fake_backend: Any
) -> None:
    bundle = Bundle.open(critic_folder)
    sampling = bundle.manifest.sampling.changed(batch=4)
    with Engine(bundle, fake_backend) as engine:
        expected = list(engine.sample(requests(11), sampling))
    calls, whole = iter(range(1, 10**6)), fake_backend.run

    def run(graph: str, inputs: dict[str, np.ndarray]) -> Any:
        if graph == "denoiser" and next(calls) == call:
            raise DeviceMemoryError("no memory left")
        return whole(graph, inputs)

    fake_backend.run = run
    with Engine(bundle, fake_backend) as engine:
        found = list(engine.sample(requests(11), sampling))
        assert engine._runtime.limits == {(32, 32): 2}
        assert [pair.halved_batch for pair in engine.sample(requests(3), sampling)] == [2, 2, 2]
    whole_before = 4 * ((call - 1) // 3)  # of three steps each; those under way with the one that failed come again
    assert [pair.halved_batch for pair in found] == [None] * whole_before + [2] * (11 - whole_before)
    for one, other in zip(found, expected, strict=True):
        assert one.request.index == other.request.index
        assert np.array_equal(one.image, other.image)  # the fake backend's pixels do not depend on the batch


def test_memory_that_ends_when_a_lane_opens_halves_too(critic_folder: Path, fake_backend: Any) -> None:
    device = Small()
    with Engine(Bundle.open(critic_folder), fake_backend, device) as engine:
        device.allocatable = 3 * engine._runtime.plan(setting(engine, 1)).nbytes()
        sampling = engine.bundle.manifest.sampling.changed(batch=8)
        assert [pair.halved_batch for pair in engine.sample(requests(9), sampling)] == [2] * 9
        device.allocatable = 0
        with pytest.raises(DeviceMemoryError, match="no memory for"):
            list(engine.sample(requests(2), sampling.changed(steps=5)))


def test_a_set_records_where_the_batch_was_halved(
    critic_folder: Path, fake_backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = fake_backend.run, iter(range(1, 10**6))

    def run(graph: str, inputs: dict[str, np.ndarray]) -> Any:
        if graph == "denoiser" and next(calls) == 5:
            raise DeviceMemoryError("no memory left")
        return whole(graph, inputs)

    fake_backend.run = run
    monkeypatch.setattr(msdm_engine.engine, "open_backend", lambda *_, **__: fake_backend)
    group = GroupRequest(Invent(), count=5, height_px=32, width_px=32)
    assert generate(SetRequest((group,)), tmp_path / "out", bundle=critic_folder) == 5
    records = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [record.get("batch") for record in records] == [None, None, 1, 1, 1]

"""The pipeline under strict stream semantics: nothing races, and each event that is taken away is missed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine import Bundle, Engine, Pair, PairRequest
from msdm_engine.devices.simulated import Operation, SimulatedDevice
from msdm_engine.errors import NumericsError
from msdm_engine.pipeline.runtime import Runtime
from msdm_engine.rehearsal.backends import SimulatedBackend
from msdm_engine.sampling.guidance import NO_GUIDANCE, Guidance

#: Stochastic, so that noise goes round in its sets and pinned rows; a branch without conditions, which is kept.
SOLVER, STEPS, BATCH = "euler-ancestral", 6, 2
GUIDED = Guidance(0.5, 0.3, 0.7, sigma_low=0.05, sigma_high=10)


def simulated(folder: Path, backend: Any, device: SimulatedDevice) -> Engine:
    """An engine with all four streams, like on a GPU (captured, noise of a whole trajectory) or like on the host."""
    bundle = Bundle.open(folder)
    engine = Engine(bundle, SimulatedBackend(backend, bundle), device)
    engine._runtime = Runtime(device, bundle, engine.backend, concurrent=True)
    return engine


def sampled(engine: Engine, sizes: list[int], guidance: Guidance = GUIDED, solver: str = SOLVER) -> list[Pair]:
    """One pair of each size; the mask of every other one is invented."""
    sampling = engine.bundle.manifest.sampling.changed(steps=STEPS, solver=solver, batch=BATCH)
    mask = np.zeros((16, 16), np.uint16)
    mask[3:9, 4:11] = 1
    requests = [
        PairRequest(i, 3, s, s, None if i % 2 else np.kron(mask, np.ones((s // 16,) * 2, int)))
        for i, s in enumerate(sizes)
    ]
    return list(engine.sample([replace(r, instances=r.instances) for r in requests], sampling, guidance))


def outcome(
    folder: Path, backend: Any, unified: bool, solver: str, **seeded: Any
) -> tuple[list[bytes], SimulatedDevice]:
    """Pictures of four batches, the last one short."""
    device = SimulatedDevice(unified=unified, **seeded)
    with simulated(folder, backend, device) as engine:
        return [pair.image.tobytes() for pair in sampled(engine, [16] * 7, solver=solver)], device


def is_found(
    pair: tuple[str, str], expected: dict[str, list[bytes]], folder: Path, backend: Any, unified: bool
) -> bool:
    """Whether a buffer on the memory of another is noticed."""
    for solver, pictures in expected.items():
        found, device = outcome(folder, backend, unified, solver, shared={pair[1]: pair[0]})
        if device.findings or found != pictures:
            return True
    return False


def run(folder: Path, backend: Any, unified: bool, **seeded: Any) -> SimulatedDevice:
    """Four batches, the last one short."""
    return outcome(folder, backend, unified, SOLVER, **seeded)[1]


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize(
    ("solver", "guidance"),
    [(SOLVER, GUIDED), (SOLVER, NO_GUIDANCE), ("dpmpp-2m", GUIDED), ("dpmpp-2m", Guidance(overall=1.0))],
)
@pytest.mark.parametrize("sizes", [[16] * 9, [16, 16, 32, 16, 32, 32, 16], [16]])
def test_the_pipeline_is_clean_and_gives_what_the_host_gives(
    unified: bool, solver: str, guidance: Guidance, sizes: list[int], critic_folder: Path, fake_backend: Any
) -> None:
    device = SimulatedDevice(unified=unified)
    with simulated(critic_folder, fake_backend, device) as engine:
        found = sampled(engine, sizes, guidance, solver)
        assert device.findings == []
    assert [str(finding) for finding in device.findings] == []
    with Engine(Bundle.open(critic_folder), fake_backend) as host:
        expected = sampled(host, sizes, guidance, solver)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.instances, other.instances)
        assert one.agreement == other.agreement


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("graph", ["conditioner", "denoiser", "critic"])
def test_an_error_in_the_middle_leaves_nothing_unsafe(
    unified: bool, graph: str, critic_folder: Path, fake_backend: Any
) -> None:
    fake_backend.poison = {(graph, STEPS + 3 if graph == "denoiser" else 3): 0}
    device = SimulatedDevice(unified=unified)
    with simulated(critic_folder, fake_backend, device) as engine:
        with pytest.raises(NumericsError, match=f"graph '{graph}'"):
            sampled(engine, [16] * 9)
        fake_backend.poison = {}
        assert len(sampled(engine, [16] * 5)) == 5
    assert [str(finding) for finding in device.findings] == []


def operations(unified: bool) -> list[Operation]:
    """Every event that the pipeline records or waits for, in either shape of it."""
    slots = ["uploaded", "conditioned", "finished", "downloaded", "shown", "judged", "seen"]
    sides = {
        "uploaded": ("upload", "aside"),
        "conditioned": ("aside", "compute"),
        "finished": ("compute", "download"),
        "downloaded": ("download", "host"),
        "shown": ("upload", "aside"),
        "judged": ("aside", "download"),
        "seen": ("download", "host"),
        "noise written": ("upload", "compute"),
        "noise read": ("compute", "upload"),
        "noise copied": ("upload", "host"),
    }
    counts = dict.fromkeys(slots, 2) | {"noise copied": 4}
    counts |= {"noise written": 4, "noise read": 4} if unified else {"noise written": 4}
    found: list[Operation] = []
    for name, count in counts.items():
        recorded, waited = sides[name]
        for i in range(count):
            found.append(("record", recorded, f"{name}[{i}]"))
            found.append(("synchronize" if waited == "host" else "wait", waited, f"{name}[{i}]"))
    return found


@pytest.mark.parametrize("unified", [True, False])
def test_the_list_of_events_is_complete(unified: bool, critic_folder: Path, fake_backend: Any) -> None:
    """So that an event that is added is seeded too."""
    device = run(critic_folder, fake_backend, unified)
    done = {operation for operation in device.operations if not operation[2].startswith("stream ")}
    assert done == set(operations(unified))


SEEDED = [(unified, operation) for unified in (True, False) for operation in operations(unified)]


@pytest.mark.parametrize(("unified", "operation"), SEEDED, ids=lambda value: str(value))
def test_each_event_that_is_removed_is_missed(
    unified: bool, operation: Operation, critic_folder: Path, fake_backend: Any
) -> None:
    device = run(critic_folder, fake_backend, unified, removed=operation)
    assert device.findings, f"without {operation} nothing is found: the event orders nothing"
    # It says which streams to order, and by which event: one that is there and was not waited for, or none is.
    for finding in device.findings:
        assert finding.buffer and finding.work and finding.stream and finding.other_stream
        assert " after '" in finding.remedy and finding.other_stream in finding.remedy


def families(names: list[str]) -> list[tuple[str, str]]:
    """Pairs of buffers that are there several times: of both slots, of the noise sets and rows, of a step."""

    def family(name: str) -> str:
        return "".join("#" if c.isdigit() else c for c in name)

    kinds = ("row", "map_features_")  # each of them is a buffer of its own, and no copy of another
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        if "[" in name and not name.startswith(kinds[0]):
            key = name.rsplit("[", 1)[0] if name.startswith(kinds[1]) else family(name)
            groups.setdefault(key, []).append(name)
    return [pair for group in groups.values() for pair in itertools.combinations(group, 2)]


@pytest.mark.parametrize("unified", [True, False])
def test_each_pair_of_buffers_on_one_memory_is_found(unified: bool, critic_folder: Path, fake_backend: Any) -> None:
    """By a hazard, or where all is in order, by a result that is not the host's: noise under noise of the same set.

    What noise that goes round keeps in order by itself, is a hazard without noise; so both are looked at.
    """
    expected = {solver: outcome(critic_folder, fake_backend, unified, solver)[0] for solver in (SOLVER, "dpmpp-2m")}
    pairs = families(run(critic_folder, fake_backend, unified).names)
    kinds = {"start", "final", "maps", "pooled", "noise", "pinned", "x", "d"}
    assert kinds <= {first.split("[")[0] for first, _ in pairs}
    missed = [pair for pair in pairs if not is_found(pair, expected, critic_folder, fake_backend, unified)]
    assert missed == [], missed

"""Each hazard that the contract forbids, made on purpose on the simulated device; and the same calls in order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from msdm_engine.devices.contract import Work
from msdm_engine.devices.simulated import SimulatedBuffer, SimulatedDevice
from msdm_engine.errors import DeviceError

FLOAT = np.dtype(np.float32)


def double(reads: SimulatedBuffer, writes: SimulatedBuffer, name: str = "double") -> Work:
    def run(_: object) -> None:
        writes.array()[...] = 2 * reads.array()

    return Work(name, (reads,), (writes,), run)


class Bench:
    """Two streams, an event, and the way of a number up, doubled, and down."""

    def __init__(self, *, unified: bool = False) -> None:
        self.device = SimulatedDevice(unified=unified)
        self.upload, self.compute = self.device.stream("upload"), self.device.stream("compute")
        self.up, self.down = self.device.event("up"), self.device.event("down")
        self.host = self.buffer("host", "host")
        self.a, self.b = self.buffer("a"), self.buffer("b")

    def buffer(self, name: str, place: str = "device") -> SimulatedBuffer:
        return self.device.buffer(name, (4,), FLOAT, "host" if place == "host" else "device")

    def put(self) -> None:
        self.host.array()[...] = 3
        self.upload.copy(self.a, self.host)
        self.upload.record(self.up)

    def found(self) -> list[tuple[str, str]]:
        return [(finding.kind, finding.buffer) for finding in self.device.findings]


def test_what_is_in_order_is_clean_and_computed() -> None:
    bench = Bench()
    bench.put()
    bench.compute.wait(bench.up)
    bench.compute.submit(double(bench.a, bench.b))
    bench.compute.copy(bench.host, bench.b)
    bench.compute.record(bench.down)
    assert not bench.down.done()
    bench.down.synchronize()
    assert bench.down.done()
    assert bench.host.array().tolist() == [6] * 4
    for buffer in (bench.host, bench.a, bench.b):
        buffer.free()
    assert bench.found() == []


def missing_event(bench: Bench) -> None:
    bench.put()
    bench.compute.submit(double(bench.a, bench.b))


def overwrite_while_read(bench: Bench) -> None:
    bench.put()
    bench.compute.wait(bench.up)
    bench.compute.submit(double(bench.a, bench.b))
    bench.upload.copy(bench.a, bench.host)


def overwrite_while_written(bench: Bench) -> None:
    bench.put()
    bench.compute.wait(bench.up)
    bench.compute.copy(bench.b, bench.a)
    bench.upload.copy(bench.b, bench.host)


def host_touch(bench: Bench) -> None:
    bench.put()
    bench.host.array()


def free_in_flight(bench: Bench) -> None:
    bench.put()
    bench.a.free()


def use_after_free(bench: Bench) -> None:
    bench.put()
    bench.upload.synchronize()
    bench.a.free()
    bench.upload.copy(bench.a, bench.host)


def read_before_write(bench: Bench) -> None:
    bench.upload.copy(bench.b, bench.a)
    bench.upload.copy(bench.a, bench.host)


def in_place(bench: Bench) -> None:
    bench.put()
    bench.upload.submit(double(bench.a, bench.a.part("all of a", (4,))))


def not_named(bench: Bench) -> None:
    bench.put()
    bench.upload.submit(Work("secret", (bench.a,), (), lambda _: bench.b.array().fill(1)))


def replay_under_way(bench: Bench) -> None:
    with bench.compute.capture("graph") as graph:
        bench.compute.copy(bench.b, bench.a)
    bench.put()
    bench.upload.replay(graph())
    bench.compute.wait(bench.up)
    bench.compute.replay(graph())


def graph_freed_under_way(bench: Bench) -> None:
    with bench.compute.capture("graph") as graph:
        bench.compute.copy(bench.b, bench.a)
    bench.put()
    bench.upload.replay(graph())
    graph().free()


SEEDED: dict[str, tuple[Callable[[Bench], None], tuple[str, str]]] = {
    "missing event": (missing_event, ("missing event", "a")),
    "overwrite while read": (overwrite_while_read, ("overwrite while read", "a")),
    "overwrite while written": (overwrite_while_written, ("overwrite while written", "b")),
    "host touch": (host_touch, ("host touch in flight", "host")),
    "free in flight": (free_in_flight, ("free while in flight", "a")),
    "use after free": (use_after_free, ("use after free", "a")),
    "read before write": (read_before_write, ("read before write", "a")),
    "in place": (in_place, ("written in place", "a")),
    "not named": (not_named, ("not named", "b")),
    "replay under way": (replay_under_way, ("replay still under way", "graph")),
    "graph freed": (graph_freed_under_way, ("free while in flight", "graph")),
}


@pytest.mark.parametrize("hazard", SEEDED)
def test_each_hazard_is_found(hazard: str) -> None:
    seed, expected = SEEDED[hazard]
    bench = Bench()
    seed(bench)
    assert expected in bench.found()


def test_a_finding_names_work_buffer_streams_and_the_event_that_would_order_them() -> None:
    bench = Bench()
    missing_event(bench)
    (finding,) = bench.device.findings
    assert str(finding) == (
        "missing event: 'a', 'double' on compute and 'copy of 'host' to 'a'' on upload; "
        "let compute wait before 'double' for 'up' on upload after 'copy of 'host' to 'a''"
    )


def test_without_an_event_it_says_that_one_must_be_recorded() -> None:
    bench = Bench()
    bench.host.array()[...] = 1
    bench.upload.copy(bench.a, bench.host)
    bench.compute.submit(double(bench.a, bench.b))
    assert "for an event to be recorded on upload after" in bench.device.findings[0].remedy


def test_an_event_from_before_orders_nothing_that_came_after_it() -> None:
    bench = Bench()
    bench.put()
    bench.upload.copy(bench.a, bench.host)  # after the record
    bench.compute.wait(bench.up)
    bench.compute.submit(double(bench.a, bench.b))
    assert bench.found() == [("missing event", "a")]


def test_order_goes_on_over_three_streams() -> None:
    bench = Bench()
    bench.put()
    bench.compute.wait(bench.up)
    bench.compute.record(bench.down)
    third = bench.device.stream("download")
    third.wait(bench.down)
    third.copy(bench.host, bench.a)
    assert bench.found() == []


def test_parts_that_do_not_meet_do_not_race() -> None:
    bench = Bench()
    left, right = bench.a.part("left", (2,)), bench.a.part("right", (2,), 8)
    source = bench.buffer("source", "host")
    bench.upload.copy(left, source.part("one", (2,)))
    bench.compute.copy(right, source.part("other", (2,), 8))
    assert bench.found() == []
    bench.compute.copy(bench.a, source)
    assert bench.found() == [("overwrite while written", "a")]


@pytest.mark.parametrize("what", ["copy", "record", "wait", "synchronize", "capture", "work"])
def test_what_a_capture_cannot_hold_is_found_and_refused(what: str) -> None:
    bench = Bench()

    def inside() -> None:
        match what:
            case "copy":
                bench.compute.copy(bench.a, bench.host)
            case "record":
                bench.compute.record(bench.up)
            case "wait":
                bench.compute.wait(bench.up)
            case "synchronize":
                bench.compute.synchronize()
            case "capture":
                bench.compute.capture("inner").__enter__()
            case _:
                bench.compute.submit(Work("allocating", (), (), lambda _: None, capturable=False))

    with pytest.raises(DeviceError, match="not possible inside a capture"), bench.compute.capture("graph"):
        inside()
    assert [kind for kind, _ in bench.found()] == ["inside a capture"]
    bench.compute.copy(bench.b, bench.a)  # the stream goes on
    bench.compute.synchronize()


def test_the_host_does_not_see_the_memory_of_a_device_that_is_like_a_gpu() -> None:
    with pytest.raises(DeviceError, match="cannot see the buffer 'a'"):
        Bench().a.array()
    assert Bench(unified=True).a.array().tolist() == [0] * 4

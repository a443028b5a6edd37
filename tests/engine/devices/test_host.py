"""The CPU as a device: order, events, captures, and where a failure comes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from msdm_engine.devices.contract import Buffer, Work
from msdm_engine.devices.host import HostBuffer, HostDevice
from msdm_engine.devices.memory import ALIGNMENT_BYTES
from msdm_engine.errors import DeviceError, DeviceMemoryError

FLOAT = np.dtype(np.float32)
#: Longer than anything here takes, so that a deadlock fails instead of hanging.
PATIENCE_S = 10


@pytest.fixture
def host() -> Iterator[HostDevice]:
    with HostDevice() as device:
        yield device


def work(run: Callable[[], None], reads: tuple[Buffer, ...] = (), writes: tuple[Buffer, ...] = ()) -> Work:
    return Work("work", reads, writes, lambda _: run())


def test_a_stream_keeps_its_order_and_returns_at_once(host: HostDevice) -> None:
    stream, gate, done = host.stream("s"), threading.Event(), list[int]()
    stream.submit(work(lambda: assert_true(gate.wait(PATIENCE_S))))
    for i in range(5):
        stream.submit(work(lambda i=i: done.append(i)))  # type: ignore[misc]
    assert done == []
    gate.set()
    stream.synchronize()
    assert done == list(range(5))


def assert_true(value: bool) -> None:
    assert value


def test_an_event_orders_two_streams_and_the_host(host: HostDevice) -> None:
    one, other, event, gate, done = (
        host.stream("one"),
        host.stream("other"),
        host.event("e"),
        threading.Event(),
        list[str](),
    )
    assert event.done()  # never recorded
    event.synchronize()
    other.wait(event)
    one.submit(work(lambda: assert_true(gate.wait(PATIENCE_S))))
    one.submit(work(lambda: done.append("one")))
    one.record(event)
    other.wait(event)
    other.submit(work(lambda: done.append("other")))
    assert not event.done() and done == []
    gate.set()
    event.synchronize()
    other.synchronize()
    assert done == ["one", "other"] and event.done()


def test_buffers_are_aligned_zeroed_and_have_parts(host: HostDevice) -> None:
    buffer = host.buffer("b", (3, 5), FLOAT)
    assert buffer.pointer % ALIGNMENT_BYTES == 0 and not buffer.array().any() and buffer.nbytes == 60
    part = buffer.part("row 1", (1, 5), 20)
    part.array()[...] = 7
    assert buffer.array()[1].tolist() == [7] * 5 and part.pointer == buffer.pointer + 20
    part.free()
    assert buffer.array().sum() == 35
    with pytest.raises(DeviceError, match="is no part of 'b'"):
        buffer.part("too long", (3, 5), 4)
    buffer.free()
    with pytest.raises(DeviceError, match="used after it was freed"):
        part.array()


def test_copies_need_equal_sizes(host: HostDevice) -> None:
    with pytest.raises(DeviceError, match="'a' has 8 bytes, 'b' has 12"):
        host.stream("s").copy(host.buffer("b", (3,), FLOAT), host.buffer("a", (2,), FLOAT))


def test_a_capture_does_nothing_until_it_is_replayed(host: HostDevice) -> None:
    stream, source, target = host.stream("s"), host.buffer("source", (2,), FLOAT), host.buffer("target", (2,), FLOAT)
    other = host.stream("only captures")
    with other.capture("g") as graph:
        other.copy(target, source)
        other.submit(work(lambda: add_one(target), (target,), (target,)))
    for value in (3, 8):
        source.array()[...] = value
        stream.replay(graph())
        stream.synchronize()
        assert target.array().tolist() == [value + 1] * 2
        assert stream.clock.times().busy_s > 0 and not other.clock.times().runs
    graph().free()


def add_one(buffer: HostBuffer) -> None:
    array = buffer.array()
    array += 1


@pytest.mark.parametrize("what", ["copy", "record", "wait", "synchronize", "capture", "nothing"])
def test_what_a_capture_cannot_hold_is_refused_and_the_stream_goes_on(what: str, host: HostDevice) -> None:
    stream, event, done = host.stream("s"), host.event("e"), list[int]()

    def inside() -> None:
        match what:
            case "copy":
                stream.copy(host.buffer("d", (1,), FLOAT), host.buffer("h", (1,), FLOAT, "host"))
            case "record":
                stream.record(event)
            case "wait":
                stream.wait(event)
            case "synchronize":
                stream.synchronize()
            case "capture":
                stream.capture("inner").__enter__()

    with pytest.raises(DeviceError, match=r"inside a capture|is empty"), stream.capture("g"):
        inside()
    stream.submit(work(lambda: done.append(1)))
    stream.synchronize()
    assert done == [1]


def test_a_failure_belongs_to_what_was_made_of_it(host: HostDevice) -> None:
    stream, names = host.stream("s"), ("a", "b", "c", "other")
    a, b, c, other = (host.buffer(name, (1,), FLOAT) for name in names)
    ran: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError("first")

    stream.submit(work(fail, writes=(a,)))
    stream.submit(work(lambda: ran.append("b"), (a,), (b,)))
    stream.copy(c, b)
    stream.submit(work(lambda: ran.append("other"), (), (other,)))
    with pytest.raises(ZeroDivisionError, match="first"):
        stream.synchronize()
    stream.synchronize()  # it was said once
    assert ran == ["other"] and other.array().tolist() == [0]
    for buffer in (a, b, c):
        with pytest.raises(ZeroDivisionError):
            buffer.array()
    stream.submit(work(lambda: ran.append("again"), (), (a,)))
    stream.copy(b, a)
    stream.copy(c, b)
    stream.synchronize()
    assert c.array().tolist() == [0]


def test_memory_that_ends_inside_work_is_an_error_of_memory(host: HostDevice) -> None:
    stream, buffer = host.stream("s"), host.buffer("b", (1,), FLOAT)

    def fail() -> None:
        raise MemoryError

    stream.submit(work(fail, (), (buffer,)))
    with pytest.raises(DeviceMemoryError, match="no memory left on the stream 's'"):
        stream.synchronize()


def test_memory_that_is_not_there_is_an_error(host: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "zeros", zeros)
    with pytest.raises(DeviceMemoryError, match=r"no memory for the buffer 'b' of 4\.0 MiB"):
        host.buffer("b", (2**20,), FLOAT)
    free, total = host.memory()
    assert 0 < free <= total


def test_closing_drops_what_has_not_begun(host: HostDevice) -> None:
    before, stream, other = threading.active_count(), host.stream("s"), host.stream("other")
    event, begun, done = host.event("e"), threading.Event(), list[int]()
    stream.submit(work(lambda: (begun.set(), time.sleep(0.05))))  # type: ignore[arg-type, func-returns-value]
    for i in range(100):
        stream.submit(work(lambda i=i: done.append(i)))  # type: ignore[misc]
    stream.record(event)
    other.wait(event)
    assert begun.wait(PATIENCE_S) and threading.active_count() == before + 2
    host.close()
    assert threading.active_count() == before and done == [] and event.done()
    with pytest.raises(DeviceError, match="the stream 's' is closed"):
        stream.submit(work(lambda: None))


def test_streams_say_where_their_time_went(host: HostDevice) -> None:
    one, other, event = host.stream("one"), host.stream("other"), host.event("e")
    one.submit(work(lambda: time.sleep(0.02)))
    one.record(event)
    other.wait(event)
    other.synchronize()
    assert one.clock.times().busy_s >= 0.02  # sleep does not return early
    assert other.clock.times().blocked_s > 0 and other.clock.times().busy_s == 0

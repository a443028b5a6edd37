"""The CPU as a device: each stream is a thread that keeps its order, device memory is the host's.

What a stream is given is done for real, so that ONNX Runtime computes on one thread while another copies and the
caller prepares what comes next. NumPy and ONNX Runtime let go of Python's lock while they work.
"""

from __future__ import annotations

import platform
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue

import numpy as np

from msdm_engine.devices.contract import Buffer, Event, Graph, Place, Work
from msdm_engine.devices.memory import HostBuffer, free_bytes, total_bytes
from msdm_engine.errors import DeviceError, DeviceMemoryError

#: What a stream's thread does next: a piece of work, or a flag to raise.
Task = Callable[[], None] | threading.Event


class HostEvent:
    """Each record gives it a new flag, which the stream raises when it gets there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.flag: threading.Event | None = None

    def done(self) -> bool:
        """See the contract."""
        return self.flag is None or self.flag.is_set()

    def synchronize(self) -> None:
        """See the contract."""
        if self.flag is not None:
            self.flag.wait()


class HostGraph:
    """What was captured, as the tasks that do it."""

    def __init__(self, name: str, tasks: Sequence[Task]) -> None:
        self.name, self.tasks = name, tuple(tasks)

    def free(self) -> None:
        """See the contract."""
        self.tasks = ()


class HostStream:
    """A queue of tasks and a thread that does them; the thread starts with the first task."""

    def __init__(self, name: str) -> None:
        self.name, self.handle = name, 0
        self.usage = Usage()
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._captured: list[Task] | None = None
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._closing = threading.Event()

    def submit(self, work: Work) -> None:
        """See the contract."""
        if not work.capturable:
            self._outside_capture(f"the work '{work.name}'")
        self._add(lambda: self._do(work.reads, work.writes, lambda: work.run(self)))

    def copy(self, target: Buffer, source: Buffer) -> None:
        """See the contract."""
        assert isinstance(target, HostBuffer) and isinstance(source, HostBuffer)  # of this device
        if target.nbytes != source.nbytes:
            raise DeviceError(f"'{source.name}' has {source.nbytes} bytes, '{target.name}' has {target.nbytes}")
        if target.place != source.place:
            self._outside_capture(f"the copy of '{source.name}' to '{target.name}'")
        self._add(lambda: self._do((source,), (target,), lambda: _copy(target, source)))

    def record(self, event: Event) -> None:
        """See the contract."""
        assert isinstance(event, HostEvent)
        self._outside_capture(f"the record of '{event.name}'")
        flag = threading.Event()
        self._add(flag)
        event.flag = flag  # last: an interruption leaves no flag behind that nobody raises

    def wait(self, event: Event) -> None:
        """See the contract."""
        assert isinstance(event, HostEvent)
        self._outside_capture(f"the wait for '{event.name}'")
        if event.flag is not None:
            self._add(partial(self.usage.blocked, event.flag.wait))

    def synchronize(self) -> None:
        """See the contract."""
        self._outside_capture("synchronize")
        end = HostEvent("")
        self.record(end)
        end.synchronize()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    @contextmanager
    def capture(self, name: str) -> Iterator[Callable[[], Graph]]:
        """See the contract."""
        self._outside_capture("another capture")
        tasks: list[Task] = []
        self._captured = tasks
        graphs: list[Graph] = []
        try:
            yield lambda: graphs[0]
            if not tasks:
                raise DeviceError(f"the capture '{name}' of the stream '{self.name}' is empty")
            graphs.append(HostGraph(name, tasks))
        finally:
            self._captured = None

    def replay(self, graph: Graph) -> None:
        """See the contract."""
        assert isinstance(graph, HostGraph)
        for task in graph.tasks:
            self._add(task)

    def end(self) -> None:
        """Drops what has not begun; :meth:`join` waits for the thread's end."""
        self._closing.set()
        self._tasks.put(None)

    def join(self) -> None:
        """See :meth:`end`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _add(self, task: Task) -> None:
        if self._captured is not None:
            self._captured.append(task)
            return
        if self._closing.is_set():
            raise DeviceError(f"the stream '{self.name}' is closed")
        if self._thread is None:
            arguments = (self._tasks, self._closing, self.usage)
            self._thread = threading.Thread(target=_serve, args=arguments, name=f"msdm-{self.name}", daemon=True)
            self._thread.start()
        self._tasks.put(task)

    def _do(self, reads: Sequence[Buffer], writes: Sequence[Buffer], run: Callable[[], None]) -> None:
        """Runs, unless what it reads is spoilt; a failure, or that one, spoils what it writes."""
        failure: BaseException | None = next(filter(None, (_failure_of(buffer) for buffer in reads)), None)
        for buffer in writes:
            assert isinstance(buffer, HostBuffer)  # of this device
            buffer.memory.mend(buffer.start, buffer.end)
        if failure is None:
            try:
                self.usage.busy(run)
            except MemoryError as error:
                failure = DeviceMemoryError(f"no memory left on the stream '{self.name}': {error}")
            except BaseException as error:  # noqa: BLE001 (it belongs to who touches the result, not to this thread)
                failure = error
        if failure is not None:
            if isinstance(failure, Exception):
                self._failure = self._failure or failure
            for buffer in writes:
                assert isinstance(buffer, HostBuffer)
                buffer.memory.spoil(buffer.start, buffer.end, failure)

    def _outside_capture(self, what: str) -> None:
        if self._captured is not None:
            raise DeviceError(f"{what} is not possible inside a capture", note=f"stream '{self.name}'")


class Usage:
    """Seconds that a stream's thread worked, had nothing to do, and waited for events.

    Written by the stream's thread alone; who reads it meanwhile gets numbers that may be one task old.
    """

    def __init__(self) -> None:
        self.busy_s = self.starved_s = self.blocked_s = 0.0

    def busy(self, run: Callable[[], None]) -> None:
        """Runs and counts it as work."""
        began = time.perf_counter()
        try:
            run()
        finally:
            self.busy_s += time.perf_counter() - began

    def blocked(self, wait: Callable[[], object]) -> None:
        """Waits for an event and counts it."""
        began = time.perf_counter()
        wait()
        self.blocked_s += time.perf_counter() - began


def _serve(tasks: SimpleQueue[Task | None], closing: threading.Event, usage: Usage) -> None:
    """The thread of a stream; knows nothing of its owner, who may thus be forgotten without being closed."""
    began = False
    while True:
        asked = time.perf_counter()
        task = tasks.get()
        if began:  # what lies before the first task is no part of the run
            usage.starved_s += time.perf_counter() - asked
        began = True
        if task is None:
            return
        if isinstance(task, threading.Event):
            task.set()
        elif not closing.is_set():
            task()


def _failure_of(buffer: Buffer) -> BaseException | None:
    assert isinstance(buffer, HostBuffer)  # of this device
    return buffer.memory.failure(buffer.start, buffer.end)


def _copy(target: HostBuffer, source: HostBuffer) -> None:
    np.copyto(target.view().reshape(-1).view(np.uint8), source.view().reshape(-1).view(np.uint8))


class HostDevice:
    """Fulfils :class:`~msdm_engine.devices.contract.Device` on the CPU."""

    kind = "host"
    unified = True

    def __init__(self) -> None:
        self.identity = {"device": "host", "name": platform.processor() or platform.machine()}
        self._streams: list[HostStream] = []
        self._buffers: weakref.WeakSet[HostBuffer] = weakref.WeakSet()
        # An engine that is never closed must not leave a thread inside ONNX Runtime while the interpreter ends.
        self._finalizer = weakref.finalize(self, _close, self._streams)

    def __enter__(self) -> HostDevice:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def stream(self, name: str) -> HostStream:
        """See the contract."""
        self._streams.append(HostStream(name))
        return self._streams[-1]

    def event(self, name: str) -> HostEvent:
        """See the contract."""
        return HostEvent(name)

    def buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype, place: Place = "device") -> HostBuffer:
        """See the contract."""
        buffer = HostBuffer(name, shape, np.dtype(dtype), place)
        self._buffers.add(buffer)
        return buffer

    def memory(self) -> tuple[int, int]:
        """See the contract."""
        return free_bytes(), total_bytes()

    def close(self) -> None:
        """See the contract; work that has not begun is dropped."""
        self._finalizer()
        for buffer in self._buffers:
            buffer.free()


def _close(streams: list[HostStream]) -> None:
    for stream in streams:
        stream.end()
    for stream in streams:
        stream.join()

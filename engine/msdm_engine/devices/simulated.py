"""The rules of the contract, read strictly: work is done at once, and whether its order is safe is proven beside it.

The results are those of the host device, so the same pipeline can be compared on both. What would only sometimes go
wrong on a real device is a finding here every time, see :mod:`~msdm_engine.devices.races`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from msdm_engine.devices.contract import Buffer, Event, Graph, Place, Work
from msdm_engine.devices.memory import HostBuffer, Memory, free_bytes, total_bytes
from msdm_engine.devices.races import HOST, Clock, Finding, History, Races, Use
from msdm_engine.errors import DeviceError

#: ``record``, ``wait`` or ``synchronize``; the stream (or the host) that does it; the event, or the stream waited for.
Operation = tuple[str, str, str]


class SimulatedMemory(Memory):
    """Bytes with their history."""

    def __init__(self, name: str, nbytes: int) -> None:
        super().__init__(name, nbytes)
        self.history = History()


class SimulatedBuffer(HostBuffer):
    """Each touch of the host is compared with what is under way."""

    device: SimulatedDevice
    memory: SimulatedMemory

    def array(self) -> np.ndarray:
        """See the contract."""
        self.device.touched(self)
        return self.view()

    def view(self) -> np.ndarray:
        """Freed memory stays readable here, so that the detector names who uses it."""
        assert self.memory.bytes is not None
        return self.memory.bytes[self.start : self.end].view(self.dtype).reshape(self.shape)

    def part(self, name: str, shape: tuple[int, ...], offset_bytes: int = 0) -> SimulatedBuffer:
        """See the contract."""
        part = super().part(name, shape, offset_bytes)
        assert isinstance(part, SimulatedBuffer)
        part.device = self.device
        return part

    def free(self) -> None:
        """See the contract."""
        if self._owns:
            self.device.races.free(self.memory.history, self.name)


class SimulatedEvent:
    """Knows what had happened when it was recorded."""

    def __init__(self, name: str, device: SimulatedDevice) -> None:
        self.name, self.device = name, device
        self.known: Clock | None = None

    def done(self) -> bool:
        """Whether the host knows it already: no sooner can it rely on it."""
        return self.known is None or self.device.races.knows(HOST, self.known)

    def synchronize(self) -> None:
        """See the contract."""
        if self.known is not None and self.device.does("synchronize", HOST, self.name):
            self.device.races.learn(HOST, self.known)


class SimulatedGraph:
    """Captured calls, and the last replay."""

    def __init__(self, name: str, calls: list[Callable[[SimulatedStream], None]], device: SimulatedDevice) -> None:
        self.name, self.calls, self.device = name, calls, device
        self.last: Clock = {}

    def free(self) -> None:
        """See the contract."""
        if not self.device.races.knows(HOST, self.last):
            self.device.races.find("free while in flight", self.name, HOST, self.name, "wait for its last replay")
        self.calls = []


class SimulatedStream:
    """Does what it is given when it is given it."""

    def __init__(self, name: str, device: SimulatedDevice) -> None:
        self.name, self.handle, self.device = name, 0, device
        self._captured: list[Callable[[SimulatedStream], None]] | None = None

    def submit(self, work: Work) -> None:
        """See the contract."""
        if not work.capturable:
            self._outside_capture(f"the work '{work.name}'")
        self._add(lambda stream: stream.device.do(stream, work))

    def copy(self, target: Buffer, source: Buffer) -> None:
        """See the contract."""
        if target.place != source.place:
            self._outside_capture(f"the copy of '{source.name}' to '{target.name}'")
        if target.nbytes != source.nbytes:
            raise DeviceError(f"'{source.name}' has {source.nbytes} bytes, '{target.name}' has {target.nbytes}")

        def run(_: object) -> None:
            target.array().reshape(-1).view(np.uint8)[...] = source.array().reshape(-1).view(np.uint8)

        name = f"copy of '{source.name}' to '{target.name}'"
        self._add(lambda stream: stream.device.do(stream, Work(name, (source,), (target,), run)))

    def record(self, event: Event) -> None:
        """See the contract."""
        assert isinstance(event, SimulatedEvent)
        self._outside_capture(f"the record of '{event.name}'")
        if self.device.does("record", self.name, event.name):
            event.known = self.device.races.record(self.name, event.name)

    def wait(self, event: Event) -> None:
        """See the contract."""
        assert isinstance(event, SimulatedEvent)
        self._outside_capture(f"the wait for '{event.name}'")
        if event.known is not None and self.device.does("wait", self.name, event.name):
            self.device.races.learn(self.name, event.known)

    def synchronize(self) -> None:
        """See the contract."""
        self._outside_capture("synchronize")
        if self.device.does("synchronize", HOST, f"stream {self.name}"):
            self.device.races.learn(HOST, self.device.races.known(self.name))

    @contextmanager
    def capture(self, name: str) -> Iterator[Callable[[], Graph]]:
        """See the contract."""
        self._outside_capture("another capture")
        calls: list[Callable[[SimulatedStream], None]] = []
        graphs: list[Graph] = []
        self._captured = calls
        try:
            yield lambda: graphs[0]
            if not calls:
                raise DeviceError(f"the capture '{name}' of the stream '{self.name}' is empty")
            graphs.append(SimulatedGraph(name, calls, self.device))
        finally:
            self._captured = None

    def replay(self, graph: Graph) -> None:
        """See the contract."""
        assert isinstance(graph, SimulatedGraph)
        races = self.device.races
        if not graph.calls:
            races.find("use after free", f"replay of {graph.name}", self.name, graph.name, "free it later")
        races.submit(self.name)
        if not races.knows(self.name, graph.last):
            remedy = f"let {self.name} wait for its last replay"
            races.find("replay still under way", f"replay of {graph.name}", self.name, graph.name, remedy)
        for call in graph.calls:
            call(self)
        graph.last = {self.name: races.known(self.name)[self.name]}

    def _add(self, call: Callable[[SimulatedStream], None]) -> None:
        if self._captured is not None:
            self._captured.append(call)
        else:
            call(self)

    def _outside_capture(self, what: str) -> None:
        if self._captured is not None:
            self.device.races.find("inside a capture", what, self.name, "", "do it before or after the capture")
            raise DeviceError(f"{what} is not possible inside a capture", note=f"stream '{self.name}'")


class SimulatedDevice:
    """Fulfils :class:`~msdm_engine.devices.contract.Device`; what it finds is in :attr:`findings`.

    Args:
        unified: whether it is like the host device, or like a GPU, whose memory the host cannot touch.
        removed: operations that are left out, to see that they are missed.
        shared: name of a buffer -> name of another, of the same size and made before it, on whose memory it is put.
    """

    kind = "simulated"

    def __init__(
        self, *, unified: bool = False, removed: Operation | None = None, shared: Mapping[str, str] | None = None
    ) -> None:
        self.unified, self._removed, self._shared = unified, removed, dict(shared or {})
        self.identity = {"device": "simulated"}
        self.races = Races()
        #: every operation on an event that was done or left out, in order
        self.operations: list[Operation] = []
        self.names: list[str] = []
        self._memories: dict[str, SimulatedMemory] = {}
        self._running: Work | None = None

    @property
    def findings(self) -> list[Finding]:
        """All hazards so far, each once."""
        return self.races.findings

    def __enter__(self) -> SimulatedDevice:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def stream(self, name: str) -> SimulatedStream:
        """See the contract."""
        return SimulatedStream(name, self)

    def event(self, name: str) -> SimulatedEvent:
        """See the contract."""
        return SimulatedEvent(name, self)

    def buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype, place: Place = "device") -> SimulatedBuffer:
        """See the contract."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = self._memories.get(self._shared.get(name, ""))
        if memory is None:
            memory = self._memories[name] = SimulatedMemory(name, nbytes)
        buffer = SimulatedBuffer(name, shape, np.dtype(dtype), place, memory=memory)
        buffer.device, buffer._owns = self, True
        self.names.append(name)
        return buffer

    def memory(self) -> tuple[int, int]:
        """See the contract."""
        return free_bytes(), total_bytes()

    def close(self) -> None:
        """See the contract."""

    def does(self, what: str, who: str, event: str) -> bool:
        """Takes note of an operation on an event; whether it is to be done."""
        self.operations.append((what, who, event))
        return (what, who, event) != self._removed

    def do(self, stream: SimulatedStream, work: Work) -> None:
        """Runs a piece of work, after comparing what it uses with what is under way."""
        time = self.races.submit(stream.name)
        for reader in work.reads:
            for writer in work.writes:
                if _overlap(reader, writer) and reader is not writer:
                    remedy = f"'{writer.name}' must be a buffer of its own"
                    self.races.find("written in place", work.name, stream.name, reader.name, remedy)
        for buffers, writes in ((work.reads, False), (work.writes, True)):
            for buffer in buffers:
                assert isinstance(buffer, SimulatedBuffer)  # of this device
                use = Use(work.name, buffer.name, stream.name, time, buffer.start, buffer.end, writes)
                self.races.use(buffer.memory.history, use)
        outer, self._running = self._running, work
        try:
            work.run(stream)
        finally:
            self._running = outer

    def touched(self, buffer: SimulatedBuffer) -> None:
        """Work touches what it named; the host, what nobody uses meanwhile."""
        if self._running is not None:
            if not any(_overlap(buffer, named) for named in (*self._running.reads, *self._running.writes)):
                self.races.find(
                    "not named", self._running.name, "", buffer.name, "add it to what the work reads or writes"
                )
            return
        if buffer.place == "device" and not self.unified:
            raise DeviceError(f"the host cannot see the buffer '{buffer.name}' of the device")
        use = Use("touch", buffer.name, HOST, self.races.submit(HOST), buffer.start, buffer.end, writes=True)
        self.races.use(buffer.memory.history, use)


def _overlap(one: Buffer, other: Buffer) -> bool:
    assert isinstance(one, HostBuffer) and isinstance(other, HostBuffer)
    return one.memory is other.memory and one.start < other.end and other.start < one.end

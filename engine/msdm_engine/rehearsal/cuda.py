"""A CUDA runtime of host memory that records its calls, with the signatures of ``cuda.bindings.runtime``.

Work is queued when it is submitted and done when the host waits for it, or another stream's wait demands it: a host
that reads too early sees old bytes, and a missing wait between streams leaves them in the wrong order. Copies and
kernels of memory that is not held are illegal addresses, from the stream's end on, as on a GPU.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

OK, INVALID, NO_MEMORY, ILLEGAL_ADDRESS, NOT_READY = 0, 1, 2, 700, 600
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURE_IMPLICIT = 900, 901, 906
NAMES = {
    INVALID: "cudaErrorInvalidValue",
    NO_MEMORY: "cudaErrorMemoryAllocation",
    35: "cudaErrorInsufficientDriver",
    100: "cudaErrorNoDevice",
    ILLEGAL_ADDRESS: "cudaErrorIllegalAddress",
    NOT_READY: "cudaErrorNotReady",
    CAPTURE_UNSUPPORTED: "cudaErrorStreamCaptureUnsupported",
    CAPTURE_INVALIDATED: "cudaErrorStreamCaptureInvalidated",
}
#: What spoils a capture that is under way: it synchronises or allocates.
SPOILS = frozenset(
    (
        *("cudaMalloc", "cudaMallocFromPoolAsync", "cudaHostAlloc", "cudaFree", "cudaFreeHost"),
        *("cudaStreamSynchronize", "cudaEventQuery", "cudaEventSynchronize"),
    )
)

Operation = Callable[[], int]


class Kind(enum.IntEnum):
    """``cudaMemcpyKind``."""

    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class CaptureMode(enum.IntEnum):
    """``cudaStreamCaptureMode``."""

    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


class Attribute(enum.IntEnum):
    """``cudaDeviceAttr``, as far as it is asked."""

    cudaDevAttrMemoryPoolsSupported = 115


@dataclass
class Queue:
    """A stream: what is queued, how much was ever queued and done, what is recorded while it is captured."""

    queued: list[Operation] = field(default_factory=list)
    added: int = 0
    done: int = 0
    recorded: list[Operation] | None = None
    spoilt: bool = False


@dataclass
class Call:
    """A call of the runtime and its arguments."""

    name: str
    arguments: tuple[Any, ...]


class RehearsedCuda:
    """Attributes are the runtime's functions; each records itself and answers ``(error, ...)``.

    Args:
        gpus: how many there are; with 0 ``cudaGetDeviceCount`` answers ``count_error``.
        memory_bytes: of the GPU.
    """

    cudaMemcpyKind = Kind
    cudaStreamCaptureMode = CaptureMode
    cudaDeviceAttr = Attribute
    cudaMemAllocationType = SimpleNamespace(cudaMemAllocationTypePinned=1)
    cudaMemLocationType = SimpleNamespace(cudaMemLocationTypeDevice=1)
    cudaStreamNonBlocking, cudaEventBlockingSync, cudaEventDisableTiming = 1, 1, 2

    def __init__(self, *, gpus: int = 1, memory_bytes: int = 2**30, capability: tuple[int, int] = (8, 9)) -> None:
        self.gpus, self.memory_bytes, self.capability = gpus, memory_bytes, capability
        self.count_error = OK if gpus else 100
        self.calls: list[Call] = []
        #: name of a call -> errors that its next calls answer, in place of doing anything
        self.fails: dict[str, list[int]] = {}
        self.memory: dict[int, Any] = {}
        self.on_host: set[int] = set()
        self.streams: dict[int, Queue] = {1: Queue(), 2: Queue()}  # the legacy and the per-thread default stream
        self.events: dict[int, tuple[int, int] | None] = {}
        self.graphs: dict[int, list[Operation]] = {}
        self.pools: set[int] = set()
        self.sticky = OK
        self._handles = 0x1000

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("cuda"):
            raise AttributeError(name)
        do = getattr(self, f"_{name}", None)
        if do is None:
            raise AttributeError(f"{name} is not rehearsed")

        def function(*arguments: Any) -> Any:
            self.calls.append(Call(name, arguments))
            if self.fails.get(name):
                return self.fails[name].pop(0), *[None] * VALUES.get(name, 0)
            capturing = [queue for queue in self.streams.values() if queue.recorded is not None]
            if capturing and name in SPOILS:
                for queue in capturing:
                    queue.spoilt = True
                return CAPTURE_UNSUPPORTED, *[None] * VALUES.get(name, 0)
            return do(*arguments)

        return function

    def named(self, name: str) -> list[Call]:
        """Recorded calls of a name."""
        return [call for call in self.calls if call.name == name]

    @property
    def left(self) -> int:
        """How much of everything is still held: memory, streams, events, graphs, pools."""
        made = len(self.streams) - 2
        return len(self.memory) + made + len(self.events) + len(self.graphs) + len(self.pools)

    def enqueue(self, stream: int, operation: Operation) -> int:
        """What a kernel or a library puts on a stream: done in its order, recorded while it is captured."""
        queue = self.streams.get(int(stream))
        if queue is None:
            return INVALID
        if queue.recorded is not None:
            queue.recorded.append(operation)
            return OK
        queue.queued.append(operation)
        queue.added += 1
        return OK

    def check(self, pointer: int, size: int) -> int:
        """OK, or ILLEGAL_ADDRESS where these bytes are not held."""
        for start, memory in self.memory.items():
            if start <= pointer and pointer + size <= start + len(memory):
                return OK
        return ILLEGAL_ADDRESS

    def drain(self, stream: int, upto: int | None = None) -> int:
        """Does what is queued on a stream, as far as its ``upto``-th operation."""
        queue = self.streams.get(stream)
        if queue is None:
            return INVALID
        while queue.queued and (upto is None or queue.done < upto) and not self.sticky:
            self.sticky = queue.queued.pop(0)()
            queue.done += 1
        return self.sticky

    def _handle(self) -> int:
        self._handles += 0x10
        return self._handles

    # Device and memory.

    def _cudaGetDeviceCount(self) -> Any:
        return self.count_error, self.gpus or None

    def _cudaSetDevice(self, index: int) -> Any:
        return (OK if index < self.gpus else INVALID,)

    def _cudaGetDeviceProperties(self, index: int) -> Any:
        major, minor = self.capability
        return OK, SimpleNamespace(name=b"Rehearsed GPU\0", major=major, minor=minor, totalGlobalMem=self.memory_bytes)

    def _cudaDriverGetVersion(self) -> Any:
        return OK, 13050

    def _cudaDeviceGetAttribute(self, attribute: Attribute, index: int) -> Any:
        return OK, 1

    def _cudaGetErrorName(self, error: int) -> Any:
        return OK, NAMES.get(error, f"cudaError{error}").encode()

    def _cudaGetErrorString(self, error: int) -> Any:
        return OK, f"rehearsed error {error}".encode()

    def _cudaGetLastError(self) -> Any:
        return (self.sticky,)

    @staticmethod
    def cudaMemPoolProps() -> Any:
        """A structure of the module, not a call."""
        return SimpleNamespace(allocType=None, location=SimpleNamespace(type=None, id=None))

    def _cudaMemPoolCreate(self, properties: Any) -> Any:
        self.pools.add(handle := self._handle())
        return OK, handle

    def _cudaMemPoolDestroy(self, pool: int) -> Any:
        return (self._drop(self.pools, pool),)

    def _cudaMemGetInfo(self) -> Any:
        used = sum(len(memory) for pointer, memory in self.memory.items() if pointer not in self.on_host)
        return OK, self.memory_bytes - used, self.memory_bytes

    def _cudaMalloc(self, size: int) -> Any:
        return self._cudaMallocFromPoolAsync(size, 0, 0)

    def _cudaFree(self, pointer: int) -> Any:
        return self._cudaFreeHost(pointer)

    def _cudaMallocFromPoolAsync(self, size: int, pool: int, stream: int) -> Any:
        if self._cudaMemGetInfo()[1] < size:
            return NO_MEMORY, None
        return OK, self._hold(size)

    def _cudaHostAlloc(self, size: int, flags: int) -> Any:
        pointer = self._hold(size)
        self.on_host.add(pointer)
        return OK, pointer

    def _hold(self, size: int) -> int:
        memory = (ctypes.c_ubyte * size)(*b"\xa5" * min(size, 64))  # not zero: nobody may count on that
        pointer = ctypes.addressof(memory)
        self.memory[pointer] = memory
        return pointer

    def _cudaFreeAsync(self, pointer: int, stream: int) -> Any:
        return (self.enqueue(stream, lambda: self._drop(self.memory, pointer)),)

    def _cudaFreeHost(self, pointer: int) -> Any:
        for stream in self.streams:
            self.drain(stream)
        return (self._drop(self.memory, pointer),)

    @staticmethod
    def _drop(held: Any, key: Any) -> int:
        if key not in held:
            return INVALID
        held.remove(key) if isinstance(held, set) else held.pop(key)
        return OK

    def _cudaPointerGetAttributes(self, pointer: int) -> Any:
        return self.check(pointer, 1) and INVALID, SimpleNamespace(device=0, type=2)

    def _cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Kind, stream: int) -> Any:
        def copy() -> int:
            if self.check(target, size) or self.check(source, size):
                return ILLEGAL_ADDRESS
            ctypes.memmove(target, source, size)
            return OK

        return (self.enqueue(stream, copy),)

    def _cudaMemsetAsync(self, target: int, value: int, size: int, stream: int) -> Any:
        def fill() -> int:
            if self.check(target, size):
                return ILLEGAL_ADDRESS
            ctypes.memset(target, value, size)
            return OK

        return (self.enqueue(stream, fill),)

    # Streams and events.

    def _cudaStreamCreateWithFlags(self, flags: int) -> Any:
        handle = self._handle()
        self.streams[handle] = Queue()
        return OK, handle

    def _cudaStreamDestroy(self, stream: int) -> Any:
        self.drain(stream)
        return (self._drop(self.streams, stream),)

    def _cudaStreamSynchronize(self, stream: int) -> Any:
        return (self.drain(stream),)

    def _cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> Any:
        recorded = self.events[event]
        return (self.enqueue(stream, lambda: OK if recorded is None else self.drain(*recorded)),)

    def _cudaEventCreateWithFlags(self, flags: int) -> Any:
        handle = self._handle()
        self.events[handle] = None
        return OK, handle

    def _cudaEventRecord(self, event: int, stream: int) -> Any:
        if event not in self.events or stream not in self.streams:
            return (INVALID,)
        self.events[event] = stream, self.streams[stream].added
        return (OK,)

    def _cudaEventQuery(self, event: int) -> Any:
        recorded = self.events[event]
        return (OK if recorded is None or self.streams[recorded[0]].done >= recorded[1] else NOT_READY,)

    def _cudaEventSynchronize(self, event: int) -> Any:
        recorded = self.events[event]
        return (OK if recorded is None else self.drain(*recorded),)

    def _cudaEventDestroy(self, event: int) -> Any:
        return (self._drop(self.events, event),)

    # Graphs.

    def _cudaStreamBeginCapture(self, stream: int, mode: CaptureMode) -> Any:
        self.streams[stream].recorded, self.streams[stream].spoilt = [], False
        return (OK,)

    def _cudaStreamEndCapture(self, stream: int) -> Any:
        queue = self.streams[stream]
        recorded, queue.recorded = queue.recorded, None
        if queue.spoilt or recorded is None:
            return CAPTURE_INVALIDATED, None
        self.graphs[handle := self._handle()] = recorded
        return OK, handle

    def _cudaGraphGetNodes(self, graph: int, count: int) -> Any:
        return OK, [], len(self.graphs[graph])

    def _cudaGraphInstantiate(self, graph: int, flags: int) -> Any:
        self.graphs[handle := self._handle()] = list(self.graphs[graph])
        return OK, handle

    def _cudaGraphUpload(self, graph: int, stream: int) -> Any:
        return (OK if graph in self.graphs else INVALID,)

    def _cudaGraphLaunch(self, graph: int, stream: int) -> Any:
        if graph not in self.graphs:
            return (INVALID,)
        for operation in self.graphs[graph]:
            self.enqueue(stream, operation)
        return (OK,)

    def _cudaGraphDestroy(self, graph: int) -> Any:
        return (self._drop(self.graphs, graph),)

    _cudaGraphExecDestroy = _cudaGraphDestroy


#: How many values follow the error code in a call's answer; none where a name is absent.
VALUES = dict.fromkeys(
    (
        *("cudaGetDeviceCount", "cudaGetDeviceProperties", "cudaDriverGetVersion", "cudaDeviceGetAttribute"),
        *("cudaMemPoolCreate", "cudaMalloc", "cudaMallocFromPoolAsync", "cudaHostAlloc", "cudaStreamCreateWithFlags"),
        *("cudaEventCreateWithFlags", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaPointerGetAttributes"),
    ),
    1,
) | {"cudaMemGetInfo": 2, "cudaGraphGetNodes": 2}

"""Streams, events and graphs of the device ``cuda``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from msdm_engine.devices.contract import Buffer, Event, Graph, Work
from msdm_engine.devices.cuda_calls import NOT_READY, call, failure
from msdm_engine.devices.cuda_memory import CudaBuffer
from msdm_engine.errors import DeviceError

if TYPE_CHECKING:
    from msdm_engine.devices.cuda import CudaDevice


class CudaEvent:
    """A CUDA event without timing. A host that waits for it sleeps: its cores are for encoding pictures."""

    def __init__(self, device: CudaDevice, name: str) -> None:
        self.name, self._device = name, device
        runtime = device.runtime
        self.handle = int(
            call(runtime, "cudaEventCreateWithFlags", runtime.cudaEventDisableTiming | runtime.cudaEventBlockingSync)
        )

    def done(self) -> bool:
        """Whether everything before the last record has happened."""
        runtime = self._device.runtime
        (error,) = runtime.cudaEventQuery(self.handle)
        if int(error) not in (0, NOT_READY):
            raise failure(runtime, "cudaEventQuery", error, f"event '{self.name}'")
        return int(error) == 0

    def synchronize(self) -> None:
        """The host waits, asleep."""
        call(self._device.runtime, "cudaEventSynchronize", self.handle, asked=f"event '{self.name}'")


class CudaGraph:
    """An executable graph, and the buffers whose addresses it holds."""

    def __init__(self, device: CudaDevice, name: str, handle: int, buffers: list[CudaBuffer]) -> None:
        self.name, self.handle, self.freed = name, handle, False
        self._device, self._buffers = device, buffers
        for buffer in buffers:
            buffer.graphs.append(name)

    def free(self) -> None:
        """Destroys it; an error the second time."""
        if self.freed:
            raise DeviceError(f"graph '{self.name}' is freed")
        self.freed = True
        for buffer in self._buffers:
            buffer.graphs.remove(self.name)
        self._device.forget(self)
        call(self._device.runtime, "cudaGraphExecDestroy", self.handle, asked=f"graph '{self.name}'")


class CudaStream:
    """A stream that waits for no other, not even the legacy default stream.

    Args:
        handle: of a stream of another library; None makes one.
        owner: of such a stream, kept alive with it.
    """

    def __init__(self, device: CudaDevice, name: str, handle: int | None = None, owner: object = None) -> None:
        self.name, self._device, self._runtime, self.borrowed = name, device, device.runtime, handle is not None
        self._owner = owner
        if handle is None:
            flags = self._runtime.cudaStreamNonBlocking
            handle = int(call(self._runtime, "cudaStreamCreateWithFlags", flags, asked=f"stream '{name}'"))
        self.handle = handle
        self._captured: list[CudaBuffer] | None = None

    def __cuda_stream__(self) -> tuple[int, int]:
        """Version and handle, for libraries that take streams by this protocol."""
        return 0, self.handle

    def submit(self, work: Work) -> None:
        """Enqueues on :attr:`handle`; what ``work`` calls must return at once."""
        if self._captured is not None:
            if not work.capturable:
                raise DeviceError(
                    f"'{work.name}' cannot be captured in a graph", note="it allocates or synchronises while it runs",
                    hint="submit it outside the capture",
                )  # fmt: skip
            self._hold(*work.reads, *work.writes)
        self._device.make_current()
        work.run(self)

    def copy(self, target: Buffer, source: Buffer) -> None:
        """One asynchronous copy of all bytes."""
        if target.nbytes != source.nbytes:
            raise DeviceError(
                f"copy of '{source.name}' ({source.nbytes} bytes) to '{target.name}' ({target.nbytes} bytes)",
                note="sizes are equal",
            )
        if self._captured is not None:
            if (target.place, source.place) != ("device", "device"):
                raise self._in_capture(f"copy of '{source.name}' between host and device")
            self._hold(target, source)
        kinds = self._runtime.cudaMemcpyKind
        word = {"device": "Device", "host": "Host"}
        kind = getattr(kinds, f"cudaMemcpy{word[source.place]}To{word[target.place]}")
        call(
            self._runtime, "cudaMemcpyAsync", target.pointer, source.pointer, target.nbytes, kind, self.handle,
            asked=f"'{source.name}' to '{target.name}'",
        )  # fmt: skip

    def zero(self, buffer: Buffer) -> None:
        """Writes zeros, on the GPU; may be captured."""
        if self._captured is not None:
            self._hold(buffer)
        call(self._runtime, "cudaMemsetAsync", buffer.pointer, 0, buffer.nbytes, self.handle, asked=buffer.name)

    def record(self, event: Event) -> None:
        """Moves the event here."""
        self._check_not_capturing(f"record of the event '{event.name}'")
        call(self._runtime, "cudaEventRecord", cast(CudaEvent, event).handle, self.handle)

    def wait(self, event: Event) -> None:
        """Later work waits on the GPU; the host does not."""
        self._check_not_capturing(f"wait for the event '{event.name}'")
        call(self._runtime, "cudaStreamWaitEvent", self.handle, cast(CudaEvent, event).handle, 0)

    def synchronize(self) -> None:
        """The host waits for everything that was submitted."""
        self._check_not_capturing("synchronize")
        call(self._runtime, "cudaStreamSynchronize", self.handle, asked=f"stream '{self.name}'")

    @contextmanager
    def capture(self, name: str) -> Iterator[Callable[[], Graph]]:
        """Records in thread-local mode, so that other threads may go on using the GPU.

        Work is submitted once before it is captured: its first run may allocate and load kernels. A capture that fails
        is still ended and its error cleared, so the stream stays usable.
        """
        self._check_not_capturing(f"capture of '{name}'")
        runtime, made = self._runtime, list[CudaGraph]()
        self._device.make_current()
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(runtime, "cudaStreamBeginCapture", self.handle, mode, asked=f"graph '{name}'")
        self._captured = []
        try:
            yield lambda: _made(made, name)
        except BaseException:
            self._abandon_capture()
            raise
        buffers, self._captured = self._captured, None
        made.append(self._instantiate(name, buffers))

    def replay(self, graph: Graph) -> None:
        """One launch: nothing is allocated, copied between host and device, or waited for."""
        found = cast(CudaGraph, graph)
        if found.freed or self._captured is not None:
            raise DeviceError(
                f"replay of the graph '{graph.name}'" + (", which is freed" if found.freed else " inside a capture")
            )
        call(self._runtime, "cudaGraphLaunch", found.handle, self.handle, asked=f"graph '{graph.name}'")

    def _instantiate(self, name: str, buffers: list[CudaBuffer]) -> CudaGraph:
        runtime = self._runtime
        error, graph = runtime.cudaStreamEndCapture(self.handle)
        if int(error) != 0:
            runtime.cudaGetLastError()  # clears it: the next call would report it once more
            raise failure(runtime, "cudaStreamEndCapture", error, f"graph '{name}'")
        try:
            if call(runtime, "cudaGraphGetNodes", graph, 0)[1] == 0:
                raise DeviceError(
                    f"the capture of '{name}' recorded nothing", note="a library that works on another GPU does that",
                    hint="open backend and device on one GPU",
                )  # fmt: skip
            executable = call(runtime, "cudaGraphInstantiate", graph, 0, asked=f"graph '{name}'")
        finally:
            runtime.cudaGraphDestroy(graph)
        made = CudaGraph(self._device, name, int(executable), buffers)
        self._device.keep(made)
        call(runtime, "cudaGraphUpload", made.handle, self.handle)  # so that the first replay is like all others
        return made

    def _abandon_capture(self) -> None:
        self._captured = None
        error, graph = self._runtime.cudaStreamEndCapture(self.handle)
        if int(error) == 0 and graph:
            self._runtime.cudaGraphDestroy(graph)
        self._runtime.cudaGetLastError()

    def _hold(self, *buffers: Buffer) -> None:
        assert self._captured is not None
        for buffer in buffers:
            if isinstance(buffer, CudaBuffer) and not any(buffer.whole is held for held in self._captured):
                self._captured.append(buffer.whole)

    def _check_not_capturing(self, what: str) -> None:
        if self._captured is not None:
            raise self._in_capture(what)

    def _in_capture(self, what: str) -> DeviceError:
        return DeviceError(
            f"{what} inside a capture on the stream '{self.name}'", note="a graph holds work of one stream on the GPU",
            hint="do it before or after the capture",
        )  # fmt: skip


def _made(graphs: list[Any], name: str) -> CudaGraph:
    if not graphs:
        raise DeviceError(f"the graph '{name}' is asked for before its capture has ended")
    found: CudaGraph = graphs[0]
    return found

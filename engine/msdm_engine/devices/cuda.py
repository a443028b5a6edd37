"""The device ``cuda``: one NVIDIA GPU through cuda-python.

Everything is made when a pipeline opens. A step then is one call: ``cudaGraphLaunch``. What only a GPU can prove of
this is listed in ``docs/tensorrt.md``; here it is tried on a CUDA runtime of host memory
(:mod:`msdm_engine.rehearsal.cuda`) that keeps the order of streams and records the calls.
"""

from __future__ import annotations

import ctypes
import math
import threading
from types import TracebackType
from typing import Any

import numpy as np

from msdm_engine.devices.contract import Place
from msdm_engine.devices.cuda_calls import call, check_has_gpu, cuda_runtime
from msdm_engine.devices.cuda_memory import CudaBuffer, Pool
from msdm_engine.devices.cuda_stream import CudaEvent, CudaGraph, CudaStream
from msdm_engine.errors import DeviceError, DeviceMemoryError


class CudaDevice:
    """Streams, events and memory of one GPU; used with ``with``.

    Args:
        index: of the GPU, as CUDA counts them.
        runtime: ``cuda.bindings.runtime``, or what records calls in its place.

    Raises:
        BackendError: cuda-python, the driver or the GPU is missing; says which extra, and names the doctor.
    """

    kind = "cuda"
    unified = False

    def __init__(self, index: int = 0, runtime: Any = None) -> None:
        self.runtime = cuda_runtime() if runtime is None else runtime
        check_has_gpu(self.runtime, index)
        self.index, self.closed = index, False
        self._current = threading.local()
        self._live: dict[int, CudaBuffer | CudaGraph | CudaStream | CudaEvent] = {}
        self.make_current()
        properties = call(self.runtime, "cudaGetDeviceProperties", index)
        version = int(call(self.runtime, "cudaDriverGetVersion"))
        self.identity = {
            "name": bytes(properties.name).decode().rstrip("\0"),
            "capability": f"sm_{properties.major}{properties.minor}",
            "driver": f"{version // 1000}.{version % 1000 // 10}",
        }
        self._pool = Pool(self.runtime, index)

    def __enter__(self) -> CudaDevice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def make_current(self, *, again: bool = False) -> None:
        """This GPU for the calling thread: CUDA keeps one for each, and TensorRT loads plans on whatever that is.

        Args:
            again: also where this thread has called it before; another library may have chosen another GPU since.
        """
        if again or not getattr(self._current, "here", False):
            call(self.runtime, "cudaSetDevice", self.index)
            self._current.here = True

    def stream(self, name: str) -> CudaStream:
        """A non-blocking stream."""
        self._check_is_open()
        stream = CudaStream(self, name)
        self.keep(stream)
        return stream

    def borrow_stream(self, name: str, handle: int, owner: object = None) -> CudaStream:
        """Another library's stream, by its handle; it is used and never destroyed here."""
        self._check_is_open()
        return CudaStream(self, name, handle, owner)

    def event(self, name: str) -> CudaEvent:
        """An event without timing."""
        self._check_is_open()
        event = CudaEvent(self, name)
        self.keep(event)
        return event

    def buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype, place: Place = "device") -> CudaBuffer:
        """Zeroed memory: of the pool on the GPU, or pinned on the host."""
        self._check_is_open()
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        try:
            pointer = self._allocate(name, nbytes, place)
        except DeviceMemoryError as error:
            free, total = self.memory()
            where = f"{free / 2**20:.1f} of {total / 2**20:.1f} MiB are free" if place == "device" else "pinned memory"
            raise DeviceMemoryError(
                f"{nbytes / 2**20:.1f} MiB for the buffer '{name}' cannot be had", note=where, hint=error.hint
            ) from error
        buffer = CudaBuffer(name, tuple(shape), dtype, place, pointer, self._release)
        self.keep(buffer)
        return buffer

    def borrow_buffer(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, pointer: int, owner: object
    ) -> CudaBuffer:
        """Another library's memory on this GPU, not copied; ``owner`` is kept alive with it, see ``interop``."""
        self._check_is_open()
        return CudaBuffer(name, tuple(shape), dtype, "device", pointer, self.forget, owner)

    def memory(self) -> tuple[int, int]:
        """Bytes free and in all."""
        free, total = call(self.runtime, "cudaMemGetInfo")
        return int(free), int(total)

    def synchronize(self) -> None:
        """The host waits for every stream of this device."""
        for stream in self._of(CudaStream):
            stream.synchronize()

    def keep(self, resource: CudaBuffer | CudaGraph | CudaStream | CudaEvent) -> None:
        """What :meth:`close` will free."""
        self._live[id(resource)] = resource

    def forget(self, resource: CudaBuffer | CudaGraph) -> None:
        """What has been freed."""
        self._live.pop(id(resource), None)

    def close(self) -> None:
        """Waits, then frees graphs, buffers, events, streams and the pool, each once, in this order.

        After a failure every one is still tried, and the first error is raised at the end. A second call does nothing.
        """
        if self.closed:
            return
        self.closed = True
        steps: list[tuple[str, tuple[Any, ...]]] = [("cudaSetDevice", (self.index,))]
        steps += [("cudaStreamSynchronize", (stream.handle,)) for stream in self._of(CudaStream)]
        for graph in self._of(CudaGraph):
            graph.freed = True
            steps.append(("cudaGraphExecDestroy", (graph.handle,)))
        for buffer in self._of(CudaBuffer):
            buffer.freed = True
            steps.append(self._free_call(buffer))
        steps += [("cudaEventDestroy", (event.handle,)) for event in self._of(CudaEvent)]
        steps += [("cudaStreamDestroy", (stream.handle,)) for stream in self._of(CudaStream)]
        steps += [(name, (handle,)) for name, handle in self._pool.close_steps()]
        self._live.clear()
        errors = []
        for name, arguments in steps:
            try:
                call(self.runtime, name, *arguments, asked="closing the device")
            except DeviceError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _of(self, kind: type) -> list[Any]:
        return [resource for resource in self._live.values() if isinstance(resource, kind)]

    def _allocate(self, name: str, nbytes: int, place: Place) -> int:
        if place == "device":
            return self._pool.allocate(nbytes, f"buffer '{name}'")
        self.make_current(again=True)
        pointer = int(call(self.runtime, "cudaHostAlloc", max(nbytes, 1), 0, asked=f"buffer '{name}'"))
        ctypes.memset(pointer, 0, nbytes)
        return pointer

    def _free_call(self, buffer: CudaBuffer) -> tuple[str, tuple[Any, ...]]:
        return self._pool.free_call(buffer.pointer) if buffer.place == "device" else ("cudaFreeHost", (buffer.pointer,))

    def _release(self, buffer: CudaBuffer) -> None:
        self.forget(buffer)
        name, arguments = self._free_call(buffer)
        call(self.runtime, name, *arguments, asked=f"buffer '{buffer.name}'")

    def _check_is_open(self) -> None:
        if self.closed:
            raise DeviceError("the device is closed", hint="open the engine again")
        self.make_current(again=True)

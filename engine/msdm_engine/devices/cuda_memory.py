"""Memory of the device ``cuda``: a stream-ordered pool on the GPU, pinned memory on the host, borrowed memory."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from msdm_engine.devices.contract import Place
from msdm_engine.devices.cuda_calls import call
from msdm_engine.errors import DeviceError


class CudaBuffer:
    """Memory of a fixed shape; made by :meth:`CudaDevice.buffer`, or borrowed from another library.

    Args:
        release: gives the memory back; called once.
        owner: whoever owns borrowed memory, kept alive as long as the buffer.
        whole: the buffer that this is a part of.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        place: Place,
        pointer: int,
        release: Callable[[CudaBuffer], None],
        owner: object = None,
        whole: CudaBuffer | None = None,
    ) -> None:
        self.name, self.shape, self.dtype, self.place, self.pointer = name, shape, np.dtype(dtype), place, pointer
        self.nbytes = math.prod(shape) * self.dtype.itemsize
        #: names of the graphs whose recorded work holds this address
        self.graphs: list[str] = []
        self.freed = False
        self._release, self._owner, self._whole = release, owner, whole

    @property
    def whole(self) -> CudaBuffer:
        """The buffer that owns the memory: this one, unless it is a part."""
        return self._whole or self

    def part(self, name: str, shape: tuple[int, ...], offset_bytes: int = 0) -> CudaBuffer:
        """A buffer of the same type on a piece of this memory; freeing it does nothing."""
        self.check_is_alive()
        size = math.prod(shape) * self.dtype.itemsize
        if offset_bytes < 0 or offset_bytes + size > self.nbytes:
            raise DeviceError(f"'{name}' of {size} bytes from {offset_bytes} is no part of '{self.name}'")
        pointer = self.pointer + offset_bytes
        return CudaBuffer(name, tuple(shape), self.dtype, self.place, pointer, self._release, whole=self.whole)

    def array(self) -> np.ndarray:
        """A view of pinned memory: of ``shape``, for the host to read or write."""
        self.check_is_alive()
        if self.place != "host":
            raise DeviceError(
                f"buffer '{self.name}' lies on the GPU", note="the host sees pinned memory only",
                hint="copy it to a buffer with place='host' and wait for the copy",
            )  # fmt: skip
        return view_of_host(self.pointer, self.shape, self.dtype)

    def check_is_alive(self) -> None:
        """Raises DeviceError after :meth:`free`."""
        if self.whole.freed:
            raise DeviceError(f"buffer '{self.name}' is freed", hint="use it before its device or pipeline is closed")

    def free(self) -> None:
        """Gives the memory back; an error if it is freed already or a graph holds its address."""
        if self._whole is not None:
            return
        self.check_is_alive()
        if self.graphs:
            raise DeviceError(
                f"buffer '{self.name}' is freed while the graph '{self.graphs[0]}' holds its address",
                hint="free the graph first",
            )
        self.freed = True
        self._release(self)
        self._owner = None


def view_of_host(pointer: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory that the host sees, as an array; it does not keep the memory."""
    raw = (ctypes.c_char * max(math.prod(shape) * np.dtype(dtype).itemsize, 1)).from_address(pointer)
    return np.ndarray(shape, dtype, memoryview(raw))


class Pool:
    """GPU memory in the order of one stream of its own; what it holds is given back wholly when it is closed."""

    def __init__(self, runtime: Any, index: int) -> None:
        self.runtime = runtime
        if not call(runtime, "cudaDeviceGetAttribute", runtime.cudaDeviceAttr.cudaDevAttrMemoryPoolsSupported, index):
            raise DeviceError(
                f"GPU {index} has no memory pools", note="CUDA 11.2 and a GPU that is not shared by time have them"
            )
        properties = runtime.cudaMemPoolProps()
        properties.allocType = runtime.cudaMemAllocationType.cudaMemAllocationTypePinned
        properties.location.type = runtime.cudaMemLocationType.cudaMemLocationTypeDevice
        properties.location.id = index
        self._pool = call(runtime, "cudaMemPoolCreate", properties, asked="the memory pool")
        try:
            self._stream = int(call(runtime, "cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking))
        except DeviceError:
            runtime.cudaMemPoolDestroy(self._pool)
            raise

    def allocate(self, nbytes: int, asked: str) -> int:
        """Address of zeroed memory, ready on every stream when this returns: it waits for the zeros."""
        size = max(nbytes, 1)
        pointer = int(call(self.runtime, "cudaMallocFromPoolAsync", size, self._pool, self._stream, asked=asked))
        try:
            call(self.runtime, "cudaMemsetAsync", pointer, 0, size, self._stream)
            call(self.runtime, "cudaStreamSynchronize", self._stream)
        except DeviceError:
            self.runtime.cudaFreeAsync(pointer, self._stream)
            raise
        return pointer

    def free_call(self, pointer: int) -> tuple[str, tuple[Any, ...]]:
        """The call that gives memory back which no work uses any more."""
        return "cudaFreeAsync", (pointer, self._stream)

    def close_steps(self) -> list[tuple[str, Any]]:
        """Calls that close it, in order."""
        return [
            ("cudaStreamSynchronize", self._stream),
            ("cudaStreamDestroy", self._stream),
            ("cudaMemPoolDestroy", self._pool),
        ]

"""Results that stay on the device: taken by PyCUDA, CuPy, PyTorch and others without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np

from msdm_engine.devices import dlpack
from msdm_engine.devices.contract import Buffer, Stream
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.interop import consumer_stream
from msdm_engine.devices.lease import Lease
from msdm_engine.errors import DeviceError


class DeviceArray:
    """A window of the engine's own memory: nothing is copied.

    ``cupy.from_dlpack(array)``, ``torch.from_dlpack(array)``, ``numpy.from_dlpack(array)`` where the device is the
    host, and whatever reads ``__cuda_array_interface__`` (PyCUDA, CuPy, Numba). Taking it after its lease has ended is
    an error; what was taken before then and is read later shows other bytes, which no protocol can prevent.

    Args:
        buffer: in C order.
        window: which part of the buffer it is, one slice for each dimension, each of step 1; None: all of it.
    """

    def __init__(self, name: str, buffer: Buffer, lease: Lease, window: tuple[slice, ...] | None = None) -> None:
        self.name, self.dtype, self._buffer, self._lease, self._device = name, buffer.dtype, buffer, lease, lease.device
        self._window = window or tuple(slice(size) for size in buffer.shape)
        ends = [part.indices(size)[:2] for part, size in zip(self._window, buffer.shape, strict=True)]
        self.shape = tuple(stop - start for start, stop in ends)
        #: elements from one to the next, in each dimension
        self.strides = dlpack.steps_in_c_order(buffer.shape)
        first = sum(start * step for (start, _), step in zip(ends, self.strides, strict=True))
        self._pointer = buffer.pointer + first * self.dtype.itemsize

    def __repr__(self) -> str:
        state = self._lease.ended or f"holds {self._lease.batch}"
        return f"DeviceArray('{self.name}', {self.shape}, {self.dtype}, {self._device.kind}: {state})"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3: whoever takes it waits for ``stream`` (PyTorch does not: give it the DLPack form).

        Where the array is written already it names none: its stream may have been given the steps of a later batch.
        """
        if not isinstance(self._device, CudaDevice):
            raise AttributeError("this array lies on the host: __dlpack__")  # so that hasattr() says no
        self._lease.check(self.name)
        plain = self.strides == dlpack.steps_in_c_order(self.shape)
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._pointer, False),  # PyTorch takes no read-only arrays
            "strides": None if plain else tuple(step * self.dtype.itemsize for step in self.strides),
            "stream": None if self._lease.ready.done() else self._lease.writer.handle,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's kind of device and its index."""
        device = self._device
        return (dlpack.CUDA, device.index) if isinstance(device, CudaDevice) else (dlpack.CPU, 0)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule; the stream of whoever asks waits on the GPU until the array is written.

        Args:
            stream: a CUDA stream; None and 1 the legacy default stream, 2 that of the thread, -1: nothing waits.

        Raises:
            DeviceError: the lease has ended; a copy, or another device, is asked for.
        """
        self._lease.check(self.name)
        here = self.__dlpack_device__()
        if copy or (dl_device is not None and tuple(dl_device) != here):
            raise DeviceError(
                f"a copy of '{self.name}' is asked for" if copy else f"'{self.name}' is asked for on {dl_device}",
                note=f"it is handed over as it is, on {here}", hint="take it so, and copy it with your own library",
            )  # fmt: skip
        if isinstance(self._device, CudaDevice):
            taker = consumer_stream(self._device, stream)
            if taker is not None:
                taker.wait(self._lease.ready)
            owner: tuple[object, ...] = (self._buffer, self._device)
        else:
            owner = (self._on_host(),)  # keeps the memory, also when its engine is closed
        versioned = max_version is not None and max_version[0] >= 1
        return dlpack.capsule_of(
            self._pointer, self.shape, self.dtype, here, owner, versioned=versioned, strides=self.strides
        )

    def numpy(self) -> np.ndarray:
        """A copy on the host, which is the caller's own."""
        self._lease.check(self.name)
        if self._device.unified:
            return self._on_host()[self._window].copy()
        writer = self._lease.writer
        host = self._device.buffer(f"{self.name} on the host", self._buffer.shape, self.dtype, "host")
        try:
            writer.copy(host, self._buffer)
            writer.synchronize()
            return host.array()[self._window].copy()
        finally:
            host.free()

    def buffer_on(self, stream: Stream) -> Buffer:
        """The whole buffer, for work on a stream of the engine's own device, which waits until it is written."""
        self._lease.check(self.name)
        stream.wait(self._lease.ready)
        return self._buffer

    def _on_host(self) -> np.ndarray:
        self._lease.ready.synchronize()
        return self._buffer.array()  # raises what spoilt it

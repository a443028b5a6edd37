"""Results that stay on the device (``out="device"``): taken by CuPy, PyTorch and others without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np

from msdm_engine.devices import dlpack
from msdm_engine.devices.contract import Buffer, Device, Event, Stream
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.interop import consumer_stream, handle_of
from msdm_engine.errors import DeviceError


class Lease:
    """How long the memory of a batch's results is theirs; the pipeline ends it before it writes there again.

    Args:
        batch: what the memory holds, as in ``batch 4``.
    """

    def __init__(self, batch: str) -> None:
        self.batch, self.ended = batch, ""
        self._released: list[Event] = []

    def end(self, why: str, stream: Stream | None = None) -> None:
        """Refuses every further use.

        Args:
            why: as in ``batch 6 is written there``.
            stream: the one that will write: it waits for the streams that :meth:`DeviceArray.release` named.
        """
        self.ended = why
        for event in self._released:
            if stream is not None:
                stream.wait(event)
        self._released.clear()

    def release_after(self, event: Event) -> None:
        """The memory is not written before this event."""
        self._released.append(event)

    def check(self, name: str) -> None:
        """Raises DeviceError after :meth:`end`."""
        if self.ended:
            raise DeviceError(
                f"'{name}' of {self.batch} is gone: {self.ended}",
                note="a result on the device is there until its memory's turn comes again",
                hint="copy it before you ask for more, as with torch.from_dlpack(array).clone()",
            )


class DeviceArray:
    """An array in the engine's own memory: nothing is copied, and it is overwritten when its lease ends.

    ``cupy.from_dlpack(array)``, ``torch.from_dlpack(array)``, ``numpy.from_dlpack(array)`` where the device is the
    host, and whatever reads ``__cuda_array_interface__`` (CuPy, Numba, PyCUDA). Taking it after the lease has ended is
    an error; what was taken before then shows the new bytes, which no protocol can prevent. Who still reads it on a
    stream of their own when they ask for the next batch calls :meth:`release` with that stream, or waits for it.

    Args:
        stream: on which it was written.
        ready: recorded there after it was.
    """

    def __init__(self, device: Device, buffer: Buffer, stream: Stream, ready: Event, lease: Lease) -> None:
        self.name, self.shape, self.dtype = buffer.name, buffer.shape, buffer.dtype
        self._device, self._buffer, self._stream, self._ready, self._lease = device, buffer, stream, ready, lease

    def __repr__(self) -> str:
        state = self._lease.ended or f"holds {self._lease.batch}"
        return f"DeviceArray('{self.name}', {self.shape}, {self.dtype}, {self._device.kind}: {state})"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3: whoever takes it waits for ``stream`` (PyTorch does not: give it the DLPack form)."""
        if not isinstance(self._device, CudaDevice):
            raise AttributeError("this array lies on the host: __dlpack__")  # so that hasattr() says no
        self._lease.check(self.name)
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._buffer.pointer, False),  # PyTorch takes no read-only arrays
            "strides": None,
            "stream": self._stream.handle,
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
                taker.wait(self._ready)
        else:
            self._ready.synchronize()
            self._buffer.array()  # raises what spoilt it
        versioned = max_version is not None and max_version[0] >= 1
        owner = (self._buffer, self._device)
        return dlpack.capsule_of(self._buffer.pointer, self.shape, self.dtype, here, owner, versioned=versioned)

    def numpy(self) -> np.ndarray:
        """A copy on the host, which is the caller's own."""
        self._lease.check(self.name)
        if self._device.unified:
            self._ready.synchronize()
            return self._buffer.array().copy()
        host = self._device.buffer(f"{self.name} on the host", self.shape, self.dtype, "host")
        try:
            self._stream.copy(host, self._buffer)
            self._stream.synchronize()
            return host.array().copy()
        finally:
            host.free()

    def release(self, stream: object = None) -> None:
        """The caller is done with the array once what ``stream`` was given until now is done.

        The engine then writes there no earlier, and the host waits for nothing.

        Args:
            stream: anything with ``__cuda_stream__``, or a handle; None: it is done already.
        """
        if stream is None or not isinstance(self._device, CudaDevice):
            return
        event = self._device.event(f"{self.name} released")
        handle, owner = handle_of(stream)
        self._device.borrow_stream("of the caller", handle, owner).record(event)
        self._lease.release_after(event)

"""Buffers in the memory of the host: those of the host device and of the simulated one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from msdm_engine.devices.contract import Place
from msdm_engine.errors import DeviceError, DeviceMemoryError

#: Of every buffer's address; a cache line, and the widest load of today's processors.
ALIGNMENT_BYTES = 64


class Memory:
    """Zeroed bytes, and what spoilt them: several buffers may lie on them."""

    def __init__(self, name: str, nbytes: int) -> None:
        try:
            raw = np.zeros(nbytes + ALIGNMENT_BYTES, np.uint8)
        except MemoryError as error:
            raise DeviceMemoryError(
                f"no memory for the buffer '{name}' of {nbytes / 2**20:.1f} MiB",
                note=f"{free_bytes() / 2**20:.0f} MiB are free",
                hint="a smaller --batch",
            ) from error
        start = -raw.ctypes.data % ALIGNMENT_BYTES
        self.bytes: np.ndarray | None = raw[start : start + nbytes]
        self._spoilt: dict[tuple[int, int], BaseException] = {}

    def spoil(self, start: int, end: int, error: BaseException) -> None:
        """What is read of these bytes from now on raises ``error``."""
        self._spoilt[start, end] = error

    def mend(self, start: int, end: int) -> None:
        """These bytes were written anew."""
        if self._spoilt:
            kept = {at: error for at, error in self._spoilt.items() if at[0] < start or end < at[1]}
            self._spoilt = kept

    def failure(self, start: int, end: int) -> BaseException | None:
        """What spoilt any of these bytes."""
        return next((error for (a, b), error in self._spoilt.items() if a < end and start < b), None)


class HostBuffer:
    """Fulfils :class:`~msdm_engine.devices.contract.Buffer` on a piece of :class:`Memory`."""

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        place: Place,
        *,
        memory: Memory | None = None,
        start: int = 0,
    ) -> None:
        self.name, self.shape, self.dtype, self.place = name, tuple(shape), np.dtype(dtype), place
        self.nbytes = math.prod(shape) * self.dtype.itemsize
        self._owns = memory is None
        self.memory, self.start, self.end = memory or Memory(name, self.nbytes), start, start + self.nbytes
        assert self.memory.bytes is not None  # it was made just now, or by a buffer that is not freed
        self.pointer = int(self.memory.bytes.ctypes.data) + start

    def view(self) -> np.ndarray:
        """The memory as it is, spoilt or not, for who runs the device's work."""
        if self.memory.bytes is None:
            raise DeviceError(f"the buffer '{self.name}' is used after it was freed")
        return self.memory.bytes[self.start : self.end].view(self.dtype).reshape(self.shape)

    def array(self) -> np.ndarray:
        """See the contract."""
        failure = self.memory.failure(self.start, self.end)
        if failure is not None:
            raise failure
        return self.view()

    def part(self, name: str, shape: tuple[int, ...], offset_bytes: int = 0) -> HostBuffer:
        """See the contract."""
        start = self.start + offset_bytes
        size = math.prod(shape) * self.dtype.itemsize
        if offset_bytes < 0 or start + size > self.end:
            raise DeviceError(f"'{name}' of {size} bytes from {offset_bytes} is no part of '{self.name}'")
        self.view()
        return type(self)(name, shape, self.dtype, self.place, memory=self.memory, start=start)

    def free(self) -> None:
        """See the contract."""
        if self._owns:
            self.memory.bytes = None


def free_bytes() -> int:
    """Memory that can be had without driving others out, as the system says; all of it where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return total_bytes()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def total_bytes() -> int:
    """Memory of the machine; what 64 bits address where the system does not say."""
    import os

    if not hasattr(os, "sysconf"):  # Windows
        return 2**47
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

"""The engine's arrays and streams in CuPy and PyTorch, and theirs in the engine: the same addresses, the same bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.device_array import DeviceArray
from msdm_engine.devices.interop import borrow, borrow_stream
from msdm_engine.devices.lease import Lease

F32 = np.dtype(np.float32)
SHAPE = (4, 3, 64, 64)


def exchange(device: CudaDevice, library: Any, name: str) -> dict[str, Any]:
    """Both ways with one library; ``name`` is ``cupy`` or ``torch``.

    Raises:
        AssertionError: something was copied, or differs.
    """
    numbers = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    stream, ready = device.stream("ours"), device.event("ready")
    host, ours = device.buffer("host", SHAPE, F32, "host"), device.buffer("result", SHAPE, F32)
    host.array()[:] = numbers
    stream.copy(ours, host)
    stream.record(ready)
    lease = Lease("the acceptance's numbers", device, stream, ready, device.event("freed"))
    result = DeviceArray("result", ours, lease)
    taken = library.from_dlpack(result)  # its stream waits for ours, and the host does not
    found = {"dlpack": address_of(taken) == ours.pointer}
    assert np.array_equal(numpy_of(taken), numbers), f"{name} reads other numbers than were written"
    if name == "cupy":
        found["cuda_array_interface"] = address_of(library.asarray(result)) == ours.pointer
    theirs = taken * 2
    foreign = library.cuda.Stream(non_blocking=True) if name == "cupy" else library.cuda.Stream()
    borrowed_stream = borrow_stream(device, foreign if hasattr(foreign, "__cuda_stream__") else handle_of(foreign))
    borrowed = borrow(device, "theirs", theirs, SHAPE, F32, borrowed_stream)
    found["borrowed"] = borrowed.pointer == address_of(theirs)
    borrowed_stream.copy(host, borrowed)
    borrowed_stream.synchronize()
    assert np.array_equal(host.array(), 2 * numbers), f"the engine reads other numbers than {name} wrote"
    borrowed.free()
    lease.end("the part is over")
    assert all(found.values()), f"copied: {', '.join(key for key, same in found.items() if not same)}"
    return {"version": str(library.__version__), "zero_copy": found}


def address_of(array: Any) -> int:
    """Of the first element of an array of CuPy or PyTorch."""
    return int(array.data.ptr) if hasattr(array.data, "ptr") else int(array.data_ptr())


def handle_of(stream: Any) -> int:
    """Of a stream of CuPy or PyTorch that has no ``__cuda_stream__``."""
    return int(stream.ptr) if hasattr(stream, "ptr") else int(stream.cuda_stream)


def numpy_of(array: Any) -> np.ndarray:
    """A copy on the host."""
    found: np.ndarray = array.get() if hasattr(array, "get") else array.cpu().numpy()
    return found

"""Streams and arrays of PyCUDA, CuPy, PyTorch and others, taken by protocol and never copied.

A stream is anything with ``__cuda_stream__`` (cuda.core, CuPy, PyTorch), or a raw handle (PyCUDA's ``stream.handle``).
An array is anything with DLPack (CuPy, PyTorch) or, without it, ``__cuda_array_interface__`` (PyCUDA, Numba); DLPack
comes first because it says which GPU and makes our stream wait, which PyTorch's array interface does not. On the host
NumPy's own ``from_dlpack`` does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from msdm_engine.devices import dlpack
from msdm_engine.devices.contract import Buffer, Stream
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.cuda_stream import CudaStream
from msdm_engine.errors import DeviceError

LEGACY_STREAM = 1


def handle_of(stream: object) -> tuple[int, object]:
    """Handle of a foreign stream, and the object that owns it.

    Raises:
        DeviceError: neither a handle nor an object with ``__cuda_stream__`` of version 0.
    """
    if isinstance(stream, int) and not isinstance(stream, bool):
        return stream or LEGACY_STREAM, None
    if not hasattr(stream, "__cuda_stream__"):
        raise DeviceError(
            f"a {type(stream).__name__} is no stream", note="an object with __cuda_stream__, or a handle as int",
            hint="PyCUDA: stream.handle; CuPy: stream.ptr; PyTorch: stream.cuda_stream",
        )  # fmt: skip
    version, handle = stream.__cuda_stream__()
    if version != 0:
        raise DeviceError(f"version {version} of __cuda_stream__", note="version 0 is known")
    return int(handle) or LEGACY_STREAM, stream


def borrow_stream(device: CudaDevice, stream: object, name: str = "borrowed") -> CudaStream:
    """A foreign stream as one of the device's; its owner is kept alive, and it is never destroyed here."""
    handle, owner = handle_of(stream)
    return device.borrow_stream(name, handle, owner)


def consumer_stream(device: CudaDevice, stream: int | None) -> CudaStream | None:
    """The stream that DLPack's ``stream`` argument means on CUDA; None: nobody waits.

    Raises:
        DeviceError: 0, which DLPack forbids: it does not say which default stream is meant.
    """
    if stream == -1:
        return None
    if stream == 0:
        raise DeviceError("stream 0", note="DLPack: 1 is the legacy default stream, 2 that of the thread, -1 none")
    return device.borrow_stream("of the taker", LEGACY_STREAM if stream is None else int(stream))


def borrow(
    device: CudaDevice, name: str, array: object, shape: tuple[int, ...], dtype: np.dtype, stream: Stream,
    *, writable: bool = False,
) -> Buffer:  # fmt: skip
    """A foreign array on this GPU as a buffer; freeing the buffer lets go of it.

    Args:
        shape, dtype: what it must be.
        stream: ours that will use it; it waits until the array's own stream has written it.
        writable: whether our work writes there.

    Raises:
        DeviceError: it speaks neither protocol, lies elsewhere, or is of another shape, type or order, or read-only.
    """
    if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        where = tuple(int(part) for part in array.__dlpack_device__())
        if where != (dlpack.CUDA, device.index):
            raise _elsewhere(name, f"{dlpack.DEVICES.get(where[0], 'another device')} ({where[1]})", device)
        taken = dlpack.Taken(_capsule(name, array.__dlpack__, stream.handle))
        _check(name, taken.tensor, shape, dtype, writable)
        return device.borrow_buffer(name, shape, dtype, taken.tensor.pointer, (taken, array))
    if hasattr(array, "__cuda_array_interface__"):
        interface = array.__cuda_array_interface__
        tensor = _from_interface(name, interface, device)
        _check(name, tensor, shape, dtype, writable)
        _wait_for(device, interface.get("stream"), stream)
        return device.borrow_buffer(name, shape, dtype, tensor.pointer, array)
    raise DeviceError(
        f"'{name}' is a {type(array).__name__}", note="an array with __dlpack__ or __cuda_array_interface__",
        hint="give an array of CuPy, PyTorch, PyCUDA or Numba on the GPU",
    )  # fmt: skip


def borrow_on_host(
    name: str, array: object, shape: tuple[int, ...], dtype: np.dtype, *, writable: bool = False
) -> np.ndarray:
    """A foreign array in host memory as NumPy's, on the same memory.

    Raises:
        DeviceError: as :func:`borrow`.
    """
    if not (hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__")):
        raise DeviceError(f"'{name}' is a {type(array).__name__}", note="an array with __dlpack__")
    where = array.__dlpack_device__()
    if where[0] not in (dlpack.CPU, dlpack.CUDA_HOST):
        raise DeviceError(
            f"'{name}' lies on {dlpack.DEVICES.get(where[0], 'another device')}", note="it must lie on the host",
            hint="copy it there with its own library",
        )  # fmt: skip
    try:
        found = np.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError) as error:
        raise DeviceError(f"'{name}' cannot be taken: {error}") from error
    strides = tuple(step // found.itemsize for step in found.strides)
    described = dlpack.Described(
        found.ctypes.data, (dlpack.CPU, 0), found.dtype, found.shape, strides, not found.flags.writeable
    )
    _check(name, described, shape, dtype, writable)
    return found


def _capsule(name: str, make: Callable[..., Any], stream: int) -> Any:
    """The newest form that the producer has; a producer from before version 1 has no ``max_version``."""
    try:
        try:
            return make(stream=stream, max_version=(1, 0))
        except TypeError:
            return make(stream=stream)
    except (BufferError, RuntimeError, TypeError) as error:  # the producer's own refusal
        raise DeviceError(f"'{name}' cannot be taken: {error}") from error


def _from_interface(name: str, interface: dict[str, Any], device: CudaDevice) -> dlpack.Described:
    """``__cuda_array_interface__``, which does not say which GPU: the driver is asked."""
    pointer, read_only = interface["data"]
    dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
    if interface.get("mask") is not None:
        raise DeviceError(f"'{name}' is a masked array", hint="give the plain one")
    strides = interface.get("strides")
    steps = None if strides is None else tuple(step // dtype.itemsize for step in strides)
    if math.prod(shape):
        error, found = device.runtime.cudaPointerGetAttributes(int(pointer))
        if int(error) != 0 or int(found.device) != device.index:
            where = "no GPU" if int(error) != 0 else f"a GPU ({int(found.device)})"
            raise _elsewhere(name, where, device)
    return dlpack.Described(int(pointer), (dlpack.CUDA, device.index), dtype, shape, steps, bool(read_only))


def _wait_for(device: CudaDevice, theirs: int | None, ours: Stream) -> None:
    """Version 3: data is there once their stream is done; None: it is there. 0 is forbidden."""
    if theirs is None or theirs == ours.handle:
        return
    if theirs == 0:
        raise DeviceError("stream 0 of a __cuda_array_interface__", note="version 3: 1, 2, a handle, or None")
    event = device.event("written by its owner")
    device.borrow_stream("of the owner", int(theirs)).record(event)
    ours.wait(event)


def _check(name: str, found: dlpack.Described, shape: tuple[int, ...], dtype: np.dtype, writable: bool) -> None:
    hint = "its own library converts and copies it: .astype, .contiguous, ascontiguousarray"
    if found.dtype != dtype:
        raise DeviceError(f"'{name}' is {found.dtype}", note=f"it must be {dtype}", hint=hint)
    if found.shape != tuple(shape):
        raise DeviceError(f"'{name}' has the shape {list(found.shape)}", note=f"it must be {list(shape)}", hint=hint)
    if found.strides is not None and not _in_c_order(found.shape, found.strides):
        raise DeviceError(
            f"'{name}' has the strides {list(found.strides)} (elements)", note="it must be in C order", hint=hint
        )
    if writable and found.read_only:
        raise DeviceError(f"'{name}' is read-only", note="it is written to", hint=hint)


def _in_c_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Dimensions of one element may have any stride, and so may all where there are no elements."""
    wanted = dlpack.steps_in_c_order(shape)
    return 0 in shape or all(size == 1 or a == b for size, a, b in zip(shape, strides, wanted, strict=True))


def _elsewhere(name: str, where: str, device: CudaDevice) -> DeviceError:
    return DeviceError(
        f"'{name}' lies on {where}", note=f"it must lie on the GPU {device.index}", hint="copy it there first"
    )

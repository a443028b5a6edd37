"""DLPack capsules, made and taken: https://dmlc.github.io/dlpack (version 1.0 and the unversioned form before it).

A capsule hands over an address, a shape and a deleter, which whoever took it calls once.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdm_engine.errors import DeviceError

CPU, CUDA, CUDA_HOST = 1, 2, 3
DEVICES = {CPU: "the host", CUDA: "a GPU", CUDA_HOST: "pinned host memory"}
READ_ONLY = 1
#: NumPy's kind of a type -> DLPack's code.
CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
KINDS = {code: kind for kind, code in CODES.items()}
PLAIN, VERSIONED = b"dltensor", b"dltensor_versioned"
#: Names of capsules that were taken; a capsule keeps no copy of its name, so these live as long as the module.
USED = {PLAIN: b"used_dltensor", VERSIONED: b"used_dltensor_versioned"}


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]


class _ManagedVersioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p), ("deleter", _Deleter),
        ("flags", ctypes.c_uint64), ("tensor", _Tensor),
    ]  # fmt: skip


@dataclass(frozen=True)
class Described:
    """What a capsule says of its tensor; ``strides`` counts elements, None is C order."""

    pointer: int
    device: tuple[int, int]
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    read_only: bool


#: Structures that somebody else may still read, by address, with what keeps their memory.
_exported: dict[int, tuple[Any, ...]] = {}


@_Deleter
def _delete(address: int) -> None:
    _exported.pop(address, None)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # not py_object: the capsule is already dying
def _destroy(capsule: int) -> None:
    for name in (PLAIN, VERSIONED):
        if _is_valid(capsule, name):  # nobody took it
            _exported.pop(_get_pointer(capsule, name), None)


def _function(name: str, *signature: Any) -> Any:
    """A function of Python's own interface with a prototype of ours: nobody else's is changed."""
    return ctypes.PYFUNCTYPE(*signature)((name, ctypes.pythonapi))


_new = _function("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_is_valid = _function("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_get_pointer = _function("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
_set_name = _function("PyCapsule_SetName", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)


def steps_in_c_order(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Elements from one to the next in each dimension."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def capsule_of(
    pointer: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    device: tuple[int, int],
    owner: object,
    *,
    versioned: bool,
    strides: tuple[int, ...] | None = None,
) -> Any:
    """A capsule of memory; ``owner`` is kept until whoever takes it has called the deleter.

    Args:
        strides: in elements; None: C order.
    """
    sizes = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    steps = (ctypes.c_int64 * max(len(shape), 1))(*(strides or steps_in_c_order(shape)))
    managed = _ManagedVersioned(1, 0) if versioned else _Managed()
    managed.tensor = _Tensor(
        pointer, *device, len(shape), CODES[dtype.kind], 8 * dtype.itemsize, 1,
        ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64)), ctypes.cast(steps, ctypes.POINTER(ctypes.c_int64)), 0,
    )  # fmt: skip
    managed.deleter = _delete
    address = ctypes.addressof(managed)
    _exported[address] = managed, sizes, steps, owner
    return _new(address, VERSIONED if versioned else PLAIN, ctypes.cast(_destroy, ctypes.c_void_p))


class Taken:
    """A capsule that was taken: its memory lives as long as this object."""

    def __init__(self, capsule: Any) -> None:
        place = id(capsule)
        name = next((name for name in (VERSIONED, PLAIN) if _is_valid(place, name)), None)
        if name is None:
            raise DeviceError("this is no DLPack capsule, or one that was taken before", hint="ask for a new one")
        address = _get_pointer(place, name)
        kind = _ManagedVersioned if name == VERSIONED else _Managed
        managed = kind.from_address(address)
        _set_name(place, USED[name])
        self._finish = weakref.finalize(self, _finish, managed, address)
        major = managed.major if name == VERSIONED else 0
        if major > 1:
            raise DeviceError(f"DLPack version {major}", note="0 and 1 are known", hint="use an older version of it")
        self.tensor = _described(managed.tensor, read_only=bool(major and managed.flags & READ_ONLY))


def _finish(managed: Any, address: int) -> None:
    if managed.deleter:
        managed.deleter(address)


def _described(tensor: _Tensor, *, read_only: bool) -> Described:
    kind = KINDS.get(tensor.code)
    if kind is None or tensor.lanes != 1 or tensor.bits % 8:
        raise DeviceError(
            f"an array of DLPack's type code {tensor.code}, {tensor.bits} bits", note="NumPy has no such type"
        )
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    dtype = np.dtype(bool) if kind == "b" else np.dtype(f"{kind}{tensor.bits // 8}")
    pointer = (tensor.data or 0) + tensor.byte_offset
    return Described(pointer, (tensor.device_type, tensor.device_id), dtype, shape, strides, read_only)

"""A writer of MATLAB files, version 5: matrices of numbers, and texts.

Source: *MAT-File Format* (The MathWorks), chapter 1, level 5. A file is a header of 128 bytes and elements; an
element has a type, a size and data, filled up to eight bytes. A matrix is an element of elements: flags, dimensions,
name, values column by column. Each matrix is compressed (miCOMPRESSED), as MATLAB's own ``save -v7`` does.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_TEXT_BYTES = 116

_INT8, _INT32, _UINT32, _DOUBLE, _MATRIX, _COMPRESSED, _UTF8 = 1, 5, 6, 9, 14, 15, 16
_CHAR_CLASS = 4
#: NumPy type -> (class of the array, type of its values)
_NUMBERS = {np.dtype("<i4"): (12, _INT32), np.dtype("<f8"): (6, _DOUBLE)}


def mat5_bytes(text: str, variables: Mapping[str, NDArray[Any] | str]) -> bytes:
    """The bytes of a file.

    Args:
        text: describes the file; its first 116 bytes as ASCII stand at the file's start.
        variables: by name (an identifier of at most 31 characters): [m, n] int32 or float64, or a text.

    Raises:
        KeyError: an array of another type.
    """
    head = text.encode("ascii", "replace")[:HEADER_TEXT_BYTES].ljust(HEADER_TEXT_BYTES)
    # No subsystem data; version 0x0100; the byte order mark reads "IM" in a little-endian file.
    parts = [head, bytes(8), struct.pack("<H", 0x0100), b"IM"]
    for name, value in variables.items():
        packed = zlib.compress(_text(name, value) if isinstance(value, str) else _numbers(name, value))
        parts.append(struct.pack("<II", _COMPRESSED, len(packed)) + packed)  # the one element that is not filled up
    return b"".join(parts)


def _numbers(name: str, array: NDArray[Any]) -> bytes:
    kind, values = _NUMBERS[array.dtype]
    return _matrix(name, kind, array.shape, _element(values, array.tobytes(order="F")))


def _text(name: str, text: str) -> bytes:
    return _matrix(name, _CHAR_CLASS, (1, len(text)), _element(_UTF8, text.encode()))


def _matrix(name: str, kind: int, shape: tuple[int, ...], values: bytes) -> bytes:
    flags = _element(_UINT32, struct.pack("<II", kind, 0))
    dimensions = _element(_INT32, struct.pack(f"<{len(shape)}i", *shape))
    return _element(_MATRIX, flags + dimensions + _element(_INT8, name.encode("ascii")) + values)


def _element(kind: int, data: bytes) -> bytes:
    if kind != _MATRIX and 0 < len(data) <= 4:  # the small form: size and type in one word
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

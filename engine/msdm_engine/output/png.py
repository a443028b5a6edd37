"""PNG bytes with standard text metadata, and atomic files."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from msdm_engine.errors import OutputError

_SIGNATURE_AND_IHDR = 8 + 25  # signature, then the IHDR chunk (length 13 + 12) that must come first
_LEGAL = {(3, (3,), "uint8"), (2, (), "uint8"), (2, (), "uint16")}


def png_bytes(array: np.ndarray, text: Mapping[str, str] | None = None, *, compression: int = 3) -> bytes:
    """Encodes a picture.

    Args:
        array: [H, W, 3] uint8 RGB, or [H, W] uint8 or uint16.
        text: keyword -> text, written as ``iTXt`` chunks (UTF-8); keywords of 1 to 79 Latin-1 characters.
        compression: zlib level, 0 to 9.

    Raises:
        OutputError: another shape or type, or text that PNG cannot hold.
    """
    # OpenCV turns any other type into 8 bits with no more than a warning, which would destroy labels.
    if (array.ndim, array.shape[2:], array.dtype.name) not in _LEGAL or array.size == 0:
        raise OutputError(
            f"a picture of shape {array.shape}, {array.dtype} cannot be encoded as PNG",
            note="[H, W, 3] uint8, [H, W] uint8 or [H, W] uint16",
        )
    pixels = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if array.ndim == 3 else array
    ok, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, compression])
    if not ok:
        raise OutputError(f"OpenCV {cv2.__version__} cannot encode a picture of shape {array.shape} as PNG")
    data = encoded.tobytes()
    chunks = b"".join(_text_chunk(keyword, value) for keyword, value in (text or {}).items())
    return data[:_SIGNATURE_AND_IHDR] + chunks + data[_SIGNATURE_AND_IHDR:]


def _text_chunk(keyword: str, value: str) -> bytes:
    try:
        key, text = keyword.encode("latin-1"), value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise OutputError(f"PNG metadata {keyword!r}: {value!r} cannot be written: {error}") from error
    if not 1 <= len(key) <= 79 or b"\0" in key + text:
        raise OutputError(
            f"PNG metadata {keyword!r}: {value!r} cannot be written",
            note="a keyword has 1 to 79 Latin-1 characters; no character is NUL",
        )
    # iTXt: keyword, NUL, compression flag and method, empty language tag and translated keyword, text.
    body = b"iTXt" + key + b"\0\0\0\0\0" + text
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def png_text(data: bytes) -> dict[str, str]:
    """Text metadata of a PNG written by :func:`png_bytes`."""
    found, position = {}, 8
    while position + 12 <= len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        if kind == b"iTXt":
            keyword, rest = body.split(b"\0", 1)
            found[keyword.decode("latin-1")] = rest[4:].decode("utf-8")
        position += 12 + length
    return found


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: temporary name in the same folder, flushed to disk, renamed.

    Raises:
        OutputError: the disk is full, read-only, or the folder is gone; no temporary file stays behind.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # an interrupt leaves nothing behind either
        with contextlib.suppress(OSError):  # a read-only disk, say; what failed first is what is reported
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(
                f"{path} cannot be written: {error.strerror or error}", hint="check the free space and the permissions"
            ) from error
        raise

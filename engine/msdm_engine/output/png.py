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
#: Least seconds plus bytes / 100 MB/s of all settings and kept encoders tried (benchmarks/encoding.py, docs/output.md):
#: each row minus the one above, then run lengths and Huffman codes only.
_SETTINGS = {
    "level": (cv2.IMWRITE_PNG_COMPRESSION, 1),
    "strategy": (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    "filter": (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
}
#: What decides the bytes of a picture beside its pixels and texts; goes into the header of a set.
PNG_CODEC = {"encoder": f"opencv {cv2.__version__}", "level": 1, "strategy": "rle", "filter": "up"}
_LEGAL = {(3, (3,), "uint8"), (2, (), "uint8"), (2, (), "uint16")}


def png_bytes(array: np.ndarray, text: Mapping[str, str] | None = None) -> bytes:
    """Encodes a picture, with the settings that :data:`PNG_CODEC` names.

    Args:
        array: [H, W, 3] uint8 RGB, or [H, W] uint8 or uint16.
        text: keyword -> text, written as ``iTXt`` chunks (UTF-8); keywords of 1 to 79 Latin-1 characters.

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
    ok, encoded = cv2.imencode(".png", pixels, [v for setting in _SETTINGS.values() for v in setting])
    if not ok:
        raise OutputError(f"OpenCV {cv2.__version__} cannot encode a picture of shape {array.shape} as PNG")
    return with_text(encoded.tobytes(), text or {})


def with_text(data: bytes, text: Mapping[str, str]) -> bytes:
    """A PNG file with texts added as ``iTXt`` chunks behind its header; raises OutputError as :func:`png_bytes`."""
    chunks = b"".join(_text_chunk(keyword, value) for keyword, value in text.items())
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


def pixels_of_png(data: bytes) -> np.ndarray:
    """[H, W, 3] uint8 RGB, or [H, W] uint8 or uint16, of a PNG written by :func:`png_bytes`.

    Raises:
        OutputError: not such a file.
    """
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise OutputError(f"a PNG of {len(data)} bytes cannot be decoded: {error}") from error
    if array is None or (array.ndim, array.shape[2:], array.dtype.name) not in _LEGAL:
        raise OutputError(f"a PNG of {len(data)} bytes is no picture or mask of a set")
    return cv2.cvtColor(array, cv2.COLOR_BGR2RGB) if array.ndim == 3 else array


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

"""What a picture file says of itself, read before anything is decoded or allocated.

A few bytes can claim a picture of gigabytes, and decoders return what they could read of a truncated file. So
size, kind and wholeness are checked here, on the file's own structure: PNG (W3C PNG, third edition), TIFF 6.0,
BigTIFF, and the frame header of JPEG (ITU-T T.81).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
#: Markers of a JPEG frame: SOF0 to SOF15 without DHT, JPG and DAC.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _FORMAT = 256, 257, 258, 262, 277, 339
_TILES = (322, 323)
_READ = {_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _FORMAT, *_TILES}
_MIN_IS_BLACK = 1
_UNSIGNED, _SIGNED = 1, 2
#: Chunks, tags or segments of one file; a legal picture has far fewer, and more would only cost time.
_MAX_PARTS = 65536
#: Bytes of a TIFF field type that can hold a number: BYTE, SHORT, LONG and LONG8.
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


@dataclass(frozen=True)
class PictureHeader:
    """What the header says.

    Args:
        kind: ``PNG``, ``TIFF`` or ``JPEG``.
        height, width: size in px.
        allocated_px: longest side that the decoder allocates: that of the picture, or of its tiles.
        grey: one channel of plain numbers, neither colours, nor a palette, nor inverted.
        bits: bits of a number.
        pages: 1, or 2 if there is more than one picture in the file.
        unsigned: the numbers have no sign.
    """

    kind: str
    height: int
    width: int
    allocated_px: int
    grey: bool
    bits: int
    pages: int = 1
    unsigned: bool = True


def picture_header(data: bytes) -> PictureHeader:
    """Reads the header.

    Raises:
        ValueError: neither PNG, TIFF nor JPEG, truncated or damaged; the message says what is wrong.
    """
    if data.startswith(_PNG):
        return _png(data)
    if data[:4] in _TIFF:
        return _tiff(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    raise ValueError("the file is empty" if not data else "it is neither PNG nor TIFF nor JPEG")


def _unpack(form: str, data: bytes, at: int) -> tuple[int, ...]:
    end = at + struct.calcsize(form)
    if at < 0 or end > len(data):
        raise ValueError(f"the file is truncated: it ends at byte {len(data)}, {end} are needed")
    return struct.unpack(form, data[at:end])


def _png(data: bytes) -> PictureHeader:
    at = len(_PNG)
    width = height = bits = colour = 0
    for part in range(_MAX_PARTS):
        length, kind = _unpack(">I", data, at)[0], data[at + 4 : at + 8]
        (crc,) = _unpack(">I", data, at + 8 + length)
        if zlib.crc32(memoryview(data)[at + 4 : at + 8 + length]) != crc:
            raise ValueError(f"the PNG is damaged: wrong checksum at byte {at}")
        if part == 0:
            if kind != b"IHDR" or length != 13:
                raise ValueError("the PNG does not begin with its header")
            width, height, bits, colour = _unpack(">IIBB", data, at + 8)
        if kind == b"IEND":
            return PictureHeader("PNG", height, width, max(height, width), colour == 0, bits)
        at += 12 + length
    raise ValueError(f"the PNG has more than {_MAX_PARTS} chunks")


def _tiff(data: bytes) -> PictureHeader:
    order, big = _TIFF[data[:4]]
    entries, following = _directory(data, order, big)
    tags: dict[int, int] = {}
    for tag, kind, count, at in entries:
        if tag in _READ:
            if tag in tags:  # readers disagree on which one holds
                raise ValueError(f"the TIFF has tag {tag} twice")
            tags[tag] = _value(data, order, big, at, kind, count)
    for name, tag in (("width", _WIDTH), ("height", _HEIGHT)):
        if tag not in tags:
            raise ValueError(f"the TIFF does not say its {name}")
    height, width = tags[_HEIGHT], tags[_WIDTH]
    return PictureHeader(
        "TIFF",
        height,
        width,
        max(height, width, *(tags.get(tag, 0) for tag in _TILES)),
        tags.get(_PHOTOMETRIC, _MIN_IS_BLACK) == _MIN_IS_BLACK and tags.get(_SAMPLES, 1) == 1,
        tags.get(_BITS, 1),
        2 if following else 1,
        tags.get(_FORMAT, _UNSIGNED) == _UNSIGNED,
    )


def _directory(data: bytes, order: str, big: bool) -> tuple[list[tuple[int, int, int, int]], int]:
    """Entries of the first directory (tag, field type, count, where the value is), and where the next one is."""
    (start,) = _unpack(order + ("Q" if big else "I"), data, 8 if big else 4)
    head, entry, word = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    (number,) = _unpack(order + head, data, start)
    if number > _MAX_PARTS:
        raise ValueError(f"the TIFF claims {number} tags")
    at, entries = start + struct.calcsize(order + head), []
    for _ in range(number):
        tag, kind, count = _unpack(order + entry, data, at)
        at += struct.calcsize(order + entry)
        entries.append((tag, kind, count, at))
        at += struct.calcsize(order + word)
    return entries, _unpack(order + word, data, at)[0]


def _value(data: bytes, order: str, big: bool, at: int, kind: int, count: int) -> int:
    """First number of a field."""
    if kind not in _NUMBERS or count < 1:
        raise ValueError(f"the TIFF has a tag of field type {kind} and length {count} in place of a number")
    form = order + _NUMBERS[kind]
    if count * struct.calcsize(form) > (8 if big else 4):  # too long for its place, which then says where it is
        (at,) = _unpack(order + ("Q" if big else "I"), data, at)
    return _unpack(form, data, at)[0]


def tiff_as_signed(data: bytes) -> bytes:
    """The same TIFF, its unsigned numbers declared signed.

    OpenCV 4 has no unsigned 32-bit type and refuses such files; as signed ones it reads the same bits.
    """
    order, big = _TIFF[data[:4]]
    entries, following = _directory(data, order, big)
    head, entry, word = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    place = struct.calcsize(order + word)
    fields = {
        tag: struct.pack(order + entry, tag, kind, count) + data[at : at + place] for tag, kind, count, at in entries
    }
    fields[_FORMAT] = struct.pack(order + entry, _FORMAT, 3, 1) + struct.pack(order + "H", _SIGNED).ljust(place, b"\0")
    directory = struct.pack(order + head, len(fields)) + b"".join(fields[tag] for tag in sorted(fields))
    directory += struct.pack(order + word, following)
    data += b"\0" * (-len(data) % 8)
    begin = 8 if big else 4
    return data[:begin] + struct.pack(order + word, len(data)) + data[begin + place :] + directory


def _jpeg(data: bytes) -> PictureHeader:
    at = 2
    for _ in range(_MAX_PARTS):
        marker, code, length = _unpack(">BBH", data, at)
        if marker != 0xFF:
            raise ValueError(f"the JPEG is damaged at byte {at}")
        if code in _FRAMES:
            bits, height, width, channels = _unpack(">BHHB", data, at + 4)
            if data.rfind(b"\xff\xd9") < at:
                raise ValueError("the JPEG is truncated: it has no end")
            return PictureHeader("JPEG", height, width, max(height, width), channels == 1, bits)
        at += 2 + length
    raise ValueError(f"the JPEG has more than {_MAX_PARTS} segments")

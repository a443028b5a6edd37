"""Instance maps from files, which are untrusted."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msdm_engine.errors import InputError
from msdm_engine.inputs.masks import MAX_SIDE_PX, mask_files, read_instances, read_rgb

#: Labels with gaps; nucleus 9 has a hole, 40 is in two pieces, 200 touches 9 and the border.
LABELS = np.zeros((20, 24), np.uint8)
LABELS[2:9, 2:9] = 9
LABELS[4:6, 4:6] = 0
LABELS[12:14, 1:4] = LABELS[16:18, 1:4] = 40
LABELS[2:9, 9:24] = 200
RENUMBERED = np.select([LABELS == 9, LABELS == 40, LABELS == 200], [1, 2, 3], 0).astype(np.uint16)


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_instances(path)
    assert str(path) in caught.value.what
    return caught.value


# --- files written byte by byte, so that they may be broken ----------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *between: bytes) -> bytes:
    """A PNG of these scanlines, each of which begins with its filter type (0)."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(between) + body + chunk(b"IEND", b"")


def tiff(array: np.ndarray, *, order: str = "<", big: bool = False, first: bool = False, **tags: int) -> bytes:
    """An uncompressed greyscale TIFF or BigTIFF in one strip; its directory stands last, or ``first``.

    ``tags`` replaces or adds SHORT or LONG fields by number, as in ``t262=0``, and ``next`` the next directory.
    """
    height, width = array.shape
    pixels = array.astype(f"{order}{array.dtype.str[1:]}").tobytes()
    word, count, head = ("Q", "Q", 16) if big else ("I", "H", 8)
    fields = {
        256: width, 257: height, 258: array.dtype.itemsize * 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: height,
        279: len(pixels), 339: {"u": 1, "i": 2, "f": 3}[array.dtype.kind],
    }  # fmt: skip
    following = tags.pop("next", 0)
    fields |= {int(name[1:]): value for name, value in tags.items()}
    fields = {tag: value for tag, value in fields.items() if value != -1}
    size = struct.calcsize(f"{order}{count}") + len(fields) * (20 if big else 12) + struct.calcsize(f"{order}{word}")
    fields[273] = head + (size if first else 0)
    start = head if first else head + len(pixels)
    entries = b"".join(
        struct.pack(f"{order}HH{word}", tag, 4, 1) + struct.pack(f"{order}I", fields[tag]).ljust(8 if big else 4, b"\0")
        for tag in sorted(fields)
    )
    directory = struct.pack(f"{order}{count}", len(fields)) + entries + struct.pack(f"{order}{word}", following)
    mark = b"II" if order == "<" else b"MM"
    header = struct.pack(f"{order}2sH", mark, 43 if big else 42)
    header += struct.pack(f"{order}HHQ", 8, 0, start) if big else struct.pack(f"{order}I", start)
    return header + (directory + pixels if first else pixels + directory)


def with_entries(*entries: tuple[int, int, int, int]) -> bytes:
    """A TIFF that is only a directory of (tag, field type, count, value)."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


def written(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


# --- kinds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_png_of_8_and_16_bits(tmp_path: Path, dtype: str) -> None:
    labels = LABELS.astype(dtype)
    cv2.imwrite(str(tmp_path / "a.png"), labels)
    read = read_instances(tmp_path / "a.png")
    assert read.dtype == np.uint16
    assert np.array_equal(read, RENUMBERED)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_each_type_and_byte_order(tmp_path: Path, dtype: str, order: str) -> None:
    labels = (LABELS // 2).astype(dtype)  # below 128 for int8
    assert np.array_equal(read_instances(written(tmp_path, "a.tif", tiff(labels, order=order))), RENUMBERED)


@pytest.mark.parametrize("sample_format", [1, -1])  # -1: no such tag, which means unsigned
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_large_unsigned_labels_of_32_bits_keep_their_order(
    tmp_path: Path, sample_format: int, big: bool, first: bool
) -> None:
    labels = np.where(LABELS > 0, LABELS + np.uint32(4_000_000_000), 0).astype(np.uint32)
    data = tiff(labels, big=big, first=first, t339=sample_format)
    assert np.array_equal(read_instances(written(tmp_path, "a.tiff", data)), RENUMBERED)


def test_tiff_as_opencv_writes_it_compressed(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.tif"), LABELS.astype(np.uint16))
    assert np.array_equal(read_instances(tmp_path / "a.tif"), RENUMBERED)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">i4", "<u2"])
def test_npy_of_each_type(tmp_path: Path, dtype: str) -> None:
    labels = (LABELS // 2).astype(dtype)
    assert np.array_equal(read_instances(written(tmp_path, "a.npy", npy(labels))), RENUMBERED)


def test_npy_in_column_order_and_of_booleans(tmp_path: Path) -> None:
    assert np.array_equal(read_instances(written(tmp_path, "a.npy", npy(np.asfortranarray(LABELS)))), RENUMBERED)
    assert np.array_equal(read_instances(written(tmp_path, "b.npy", npy(LABELS > 0))), LABELS > 0)


def test_the_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    assert np.array_equal(read_instances(written(tmp_path, "a.NPY", npy(LABELS))), RENUMBERED)
    assert [path.name for path in mask_files(tmp_path)] == ["a.NPY"]


def test_a_background_declared_transparent_changes_no_label(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + line.tobytes() for line in LABELS)
    data = png(24, 20, 8, 0, rows, chunk(b"tRNS", b"\0\0"))
    assert np.array_equal(read_instances(written(tmp_path, "a.png", data)), RENUMBERED)


# --- labels ----------------------------------------------------------------------------------------------------


def test_gaps_are_renumbered_in_the_order_of_the_labels_and_holes_and_pieces_stay(tmp_path: Path) -> None:
    read = read_instances(written(tmp_path, "a.npy", npy(LABELS.astype(np.int64) * 10**12)))
    assert np.array_equal(read, RENUMBERED)
    assert read[4, 4] == 0  # the hole
    assert read[12, 1] == read[16, 1] == 2  # both pieces


def test_a_map_without_background_has_no_label_zero(tmp_path: Path) -> None:
    read = read_instances(written(tmp_path, "a.npy", npy(np.where(LABELS == 0, 7, LABELS))))
    assert read.min() == 1
    assert read.max() == 4


def test_a_map_without_nuclei_is_legal(tmp_path: Path) -> None:
    assert not read_instances(written(tmp_path, "a.npy", npy(np.zeros((16, 16), int)))).any()


def test_as_many_nuclei_as_16_bits_can_name_and_no_more(tmp_path: Path) -> None:
    labels = np.arange(256 * 256).reshape(256, 256)
    read = read_instances(written(tmp_path, "a.npy", npy(labels)))
    assert np.array_equal(read, labels)
    labels[0, 0] = 2**20  # no background any more: 65,536 nuclei
    error = refused(written(tmp_path, "b.npy", npy(labels)))
    assert "65536 nuclei" in error.what
    assert "65535" in str(error.note)


@pytest.mark.parametrize("value", [-1, -(2**62)])
def test_negative_labels_are_refused(tmp_path: Path, value: int) -> None:
    labels = LABELS.astype(np.int64)
    labels[0, 0] = value
    assert f"negative label {value}" in refused(written(tmp_path, "a.npy", npy(labels))).what


def test_negative_labels_of_a_tiff_are_refused(tmp_path: Path) -> None:
    assert "negative label -1" in refused(written(tmp_path, "a.tif", tiff(LABELS.astype(np.int32) - 1))).what


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_fractional_labels_are_refused(tmp_path: Path, value: float) -> None:
    labels = LABELS.astype(np.float32)
    labels[3, 3] = value
    for name, data in (("a.npy", npy(labels)), ("a.tif", tiff(labels))):
        error = refused(written(tmp_path, name, data))
        assert "no whole numbers" in error.what
        assert "probabilities" in str(error.hint)


def test_huge_floating_labels_are_labels(tmp_path: Path) -> None:
    assert np.array_equal(read_instances(written(tmp_path, "a.npy", npy(LABELS * 1e30))), RENUMBERED)


# --- colours ---------------------------------------------------------------------------------------------------


def palette_png() -> bytes:
    rows = b"".join(b"\0" + bytes([x % 3 for x in range(16)]) for _ in range(16))
    return png(16, 16, 8, 3, rows, chunk(b"PLTE", bytes(range(9))))


COLOURED: dict[str, Callable[[], bytes]] = {
    "rgb.png": lambda: cv2.imencode(".png", np.dstack([LABELS] * 3))[1].tobytes(),
    "rgba.png": lambda: cv2.imencode(".png", np.dstack([LABELS] * 4))[1].tobytes(),
    "palette.png": palette_png,
    "grey-alpha.png": lambda: png(16, 16, 8, 4, (b"\0" + bytes(32)) * 16),
    "rgb.tif": lambda: cv2.imencode(".tif", np.dstack([LABELS] * 3))[1].tobytes(),
    "inverted.tif": lambda: tiff(LABELS, t262=0),
    "palette.tif": lambda: tiff(LABELS, t262=3),
}


@pytest.mark.parametrize("name", COLOURED)
def test_colour_coded_masks_are_refused_with_a_hint(tmp_path: Path, name: str) -> None:
    error = refused(written(tmp_path, name, COLOURED[name]()))
    assert "has colours" in error.what
    assert "16-bit greyscale PNG" in str(error.hint)


def test_jpeg_under_the_name_of_a_png_is_refused(tmp_path: Path) -> None:
    error = refused(written(tmp_path, "a.png", cv2.imencode(".jpg", LABELS)[1].tobytes()))
    assert "JPEG" in error.what
    assert "changes labels" in str(error.note)


def test_a_stack_of_maps_is_refused(tmp_path: Path) -> None:
    assert "several pictures" in refused(written(tmp_path, "a.tif", tiff(LABELS, next=8))).what


@pytest.mark.parametrize("shape", [(400,), (20, 20, 3), (1, 20, 20), ()])
def test_npy_of_another_dimension_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert "has the shape" in refused(written(tmp_path, "a.npy", npy(np.zeros(shape, int)))).what


@pytest.mark.parametrize("dtype", ["c8", "S3", "M8[s]", [("a", "i4")]])
def test_npy_of_no_numbers_is_refused(tmp_path: Path, dtype: Any) -> None:
    assert "has the type" in refused(written(tmp_path, "a.npy", npy(np.zeros((16, 16), dtype)))).what


# --- sizes, bounded before anything is allocated ---------------------------------------------------------------


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> None:
        raise AssertionError("a file was decoded before its size was checked")

    monkeypatch.setattr(cv2, "imdecode", forbidden)


def claims(side: int) -> dict[str, bytes]:
    return {
        "a.png": png(side, side, 16, 0, b"\0" * 100),
        "a.tif": tiff(np.zeros((16, 16), np.uint8), t256=side, t257=side),
        "big.tif": tiff(np.zeros((16, 16), np.uint8), big=True, t256=side, t257=side),
    }


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("side", [60_000, MAX_SIDE_PX + 1, 15, 0])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "big.tif"])
def test_a_picture_that_claims_an_illegal_size_is_not_decoded(tmp_path: Path, name: str, side: int) -> None:
    path = written(tmp_path, name, claims(side)[name])
    error = refused(path)
    assert f"{side} x {side} px" in error.what
    with pytest.raises(InputError, match=f"{side} x {side} px"):
        read_rgb(path)


@pytest.mark.usefixtures("no_decoding")
def test_tiles_larger_than_a_picture_are_not_decoded(tmp_path: Path) -> None:
    data = tiff(np.zeros((16, 16), np.uint8), t322=2**24, t323=16)
    assert f"tiles of {2**24} px" in refused(written(tmp_path, "a.tif", data)).what


def npy_header(text: str) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    "shape",
    ["(1000000, 1000000)", "(60000, 60000)", "(4294967296, 4294967296)", "(-1, 16)", "(99999999999999999999, 1)"],
)
def test_npy_that_claims_a_huge_shape_is_refused(tmp_path: Path, shape: str) -> None:
    data = npy_header(f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}\n") + bytes(64)
    refused(written(tmp_path, "a.npy", data))


def test_npy_of_a_sparse_file_is_bounded(tmp_path: Path) -> None:
    path = written(
        tmp_path, "a.npy", npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (60000, 60000), }\n")
    )
    os.truncate(path, 60_000**2 + 4096)  # takes no room on the disk
    assert "60000 x 60000 px" in refused(path).what


def test_npy_with_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "pickle-was-run",))

    array = np.empty((16, 16), object)
    array[0, 0] = Trap()
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    assert "has the type object" in refused(written(tmp_path, "a.npy", stream.getvalue())).what
    assert not (tmp_path / "pickle-was-run").exists()


@pytest.mark.parametrize(
    "header",
    ["", "{}", "{'descr': '<i4'}", "(" * 200, "-" * 5000 + "1", "[" * 5000, "{'descr': __import__('os'), }", "\0", "'"],
)
def test_npy_with_a_broken_header_is_refused(tmp_path: Path, header: str) -> None:
    assert "cannot be read" in refused(written(tmp_path, "a.npy", npy_header(header) + bytes(64))).what


@pytest.mark.parametrize("data", [b"", b"\x93NUM", b"PK\3\4" + bytes(64), b"\x80\4K\1.", b"hello"])
def test_what_is_no_npy_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "is not an NPY file" in refused(written(tmp_path, "a.npy", data)).what


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msdm_engine.inputs.masks.MAX_FILE_BYTES", 10)
    assert "at most 10" in str(refused(written(tmp_path, "a.png", palette_png())).note)


# --- broken files ----------------------------------------------------------------------------------------------

WHOLE: dict[str, Callable[[], bytes]] = {
    "a.png": lambda: cv2.imencode(".png", LABELS.astype(np.uint16))[1].tobytes(),
    "a.tif": lambda: tiff(LABELS.astype(np.uint16)),
    "first.tif": lambda: tiff(LABELS.astype(np.uint16), first=True),
    "big.tif": lambda: tiff(LABELS.astype(np.uint32), big=True),
    "lzw.tif": lambda: cv2.imencode(".tif", LABELS.astype(np.uint16))[1].tobytes(),
    "a.npy": lambda: npy(LABELS),
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_truncation_is_refused(tmp_path: Path, name: str) -> None:
    data = WHOLE[name]()
    assert np.array_equal(read_instances(written(tmp_path, name, data)), RENUMBERED)
    for length in range(len(data) - 1, -1, -max(1, len(data) // 40)):
        refused(written(tmp_path, name, data[:length]))


def test_a_flipped_bit_in_a_png_is_refused(tmp_path: Path) -> None:
    data = WHOLE["a.png"]()
    for position in range(8, len(data), 7):
        broken = bytearray(data)
        broken[position] ^= 4
        refused(written(tmp_path, "a.png", bytes(broken)))


def test_a_png_with_too_few_pixels_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(written(tmp_path, "a.png", png(16, 16, 8, 0, (b"\0" + bytes(16)) * 9))).what


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is no picture", "neither PNG nor TIFF"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"") + chunk(b"IEND", b""), "does not begin with its header"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(b"abCd", b"") * 70_000, "more than 65536 chunks"),
        (b"II*\0" + struct.pack("<IH", 8, 0) + bytes(4), "does not say its width"),
        (b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2**63), "tags"),
        (b"II*\0" + struct.pack("<I", 2**32 - 1), "truncated"),
        (with_entries((256, 4, 1, 16), (257, 4, 1, 16), (256, 4, 1, 60_000)), "tag 256 twice"),
        (with_entries((256, 9, 1, 16), (257, 4, 1, 16)), "field type 9"),
        (with_entries((256, 4, 0, 16), (257, 4, 1, 16)), "length 0"),
    ],
)
def test_what_is_wrong_with_a_picture_is_said(tmp_path: Path, data: bytes, reason: str) -> None:
    error = refused(written(tmp_path, "a.png", data))
    assert reason in error.what


def test_a_missing_file_and_a_folder_are_no_masks(tmp_path: Path) -> None:
    assert "no such file" in str(refused(tmp_path / "a.png").note)
    (tmp_path / "b.png").mkdir()
    assert "not a file" in str(refused(tmp_path / "b.png").note)
    (tmp_path / "c.npy").mkdir()
    refused(tmp_path / "c.npy")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["a.png", "a.npy"])
def test_a_pipe_does_not_hang(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert "not a file" in str(refused(tmp_path / name).note)


# --- folders ---------------------------------------------------------------------------------------------------


def test_mask_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.tif", "c.npy", "notes.txt", "d.TIFF"):
        (tmp_path / name).touch()
    assert [path.name for path in mask_files(tmp_path)] == ["a.tif", "b.png", "c.npy", "d.TIFF"]


def test_a_folder_without_masks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="holds no mask") as caught:
        mask_files(tmp_path)
    assert ".png, .tif" in str(caught.value.note)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.touch()])
def test_what_is_no_folder_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "masks")
    with pytest.raises(InputError, match="cannot be read"):
        mask_files(tmp_path / "masks")


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)  # rights do not stop a test that runs as root
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        mask_files(tmp_path)

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msdm_engine.errors import OutputError
from msdm_engine.output.png import png_bytes, png_text, write_atomically

RNG = np.random.default_rng(0)
PICTURES: dict[str, np.ndarray] = {
    "rgb": RNG.integers(0, 256, (21, 34, 3), dtype=np.uint8),
    "labels of 8 bits": RNG.integers(0, 256, (21, 34), dtype=np.uint8),
    "labels of 16 bits": RNG.integers(0, 65536, (21, 34), dtype=np.uint16),
}
TEXT = {"Software": "msdm 0.1.0", "Data licence": "CC0-1.0", "Comment": "a µm is 10⁻⁶ m;\nsecond line", "Empty": ""}


def walk(data: bytes) -> list[tuple[bytes, bytes]]:
    """Type and body of each chunk, by the PNG specification (third edition, section 5) and nothing else."""
    assert data[:8] == bytes([137, 80, 78, 71, 13, 10, 26, 10])
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert len(body) == length
        (crc,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(kind + body)
        chunks.append((kind, body))
        at += 12 + length
    return chunks


def international_text(body: bytes) -> tuple[str, str]:
    """Keyword and text of an iTXt chunk, section 11.3.3.4: keyword 0 flag method language 0 translated 0 text."""
    keyword, rest = body.split(b"\0", 1)
    flag, method = rest[0], rest[1]
    language, translated, text = rest[2:].split(b"\0", 2)
    assert (flag, method, language, translated) == (0, 0, b"", b"")
    return keyword.decode("latin-1"), text.decode("utf-8")


@pytest.mark.parametrize("name", PICTURES)
def test_pixels_come_back_exactly(name: str) -> None:
    picture = PICTURES[name]
    data = png_bytes(picture, TEXT)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    assert decoded.dtype == picture.dtype
    assert np.array_equal(decoded[..., ::-1] if picture.ndim == 3 else decoded, picture)


@pytest.mark.parametrize("name", PICTURES)
def test_the_file_and_its_metadata_are_standard(name: str) -> None:
    chunks = walk(png_bytes(PICTURES[name], TEXT))
    kinds = [kind for kind, _ in chunks]
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    assert dict(international_text(body) for kind, body in chunks if kind == b"iTXt") == TEXT
    # Text stands before the pixels, so that a reader of a few kilobytes finds it.
    assert max(i for i, kind in enumerate(kinds) if kind == b"iTXt") < kinds.index(b"IDAT")


def test_text_comes_back() -> None:
    assert png_text(png_bytes(PICTURES["rgb"], TEXT)) == TEXT
    assert png_text(png_bytes(PICTURES["rgb"])) == {}


def test_equal_pictures_give_equal_bytes() -> None:
    assert png_bytes(PICTURES["rgb"], TEXT) == png_bytes(PICTURES["rgb"].copy(), dict(TEXT))


def test_a_view_of_a_larger_picture_is_encoded_as_its_copy() -> None:
    view = PICTURES["rgb"][2:15, 3:20]
    assert png_bytes(view) == png_bytes(view.copy())


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.int32),  # OpenCV would write 8 bits with a warning
        np.zeros((4, 4), bool),
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_what_would_lose_values_is_refused(array: np.ndarray) -> None:
    with pytest.raises(OutputError, match=str(array.dtype)) as caught:
        png_bytes(array)
    assert "uint16" in str(caught.value.note)


@pytest.mark.parametrize(
    ("keyword", "text"), [("", "x"), ("k" * 80, "x"), ("nul\0", "x"), ("k", "nul\0"), ("→", "x"), ("k", "\ud800")]
)
def test_text_that_png_cannot_hold_is_refused(keyword: str, text: str) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        png_bytes(PICTURES["rgb"], {keyword: text})


# --- atomic files ----------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.png", b"new")
    assert (tmp_path / "a.png").read_bytes() == b"new"
    assert names(tmp_path) == ["a.png"]


def test_data_reaches_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    replace, fsync = os.replace, os.fsync

    def noted_fsync(file: int) -> None:
        events.append(f"fsync {os.fstat(file).st_size}")
        fsync(file)

    def noted_replace(*paths: Any) -> None:
        events.append("replace")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_atomically(tmp_path / "a.png", b"12345")
    assert events == ["fsync 5", "replace"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, existing: bool
) -> None:
    if existing:
        (tmp_path / "a.png").write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OutputError, match=f"cannot be written: {os.strerror(errno.ENOSPC)}") as caught:
        write_atomically(tmp_path / "a.png", b"new")
    assert str(tmp_path / "a.png") in caught.value.what
    assert "free space" in str(caught.value.hint)
    assert names(tmp_path) == (["a.png"] if existing else [])
    assert not existing or (tmp_path / "a.png").read_bytes() == b"old"


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.png", b"new")
    assert names(tmp_path) == []


def test_what_failed_first_is_reported_where_cleaning_up_fails_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "open", fail)
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(OutputError, match=os.strerror(errno.EROFS)):
        write_atomically(tmp_path / "a.png", b"new")


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        write_atomically(tmp_path / "nowhere" / "a.png", b"new")

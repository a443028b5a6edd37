"""Colour pictures from files, which are untrusted."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from msdm_engine.errors import InputError
from msdm_engine.inputs.masks import read_rgb

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def written(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_picture_is_read_as_red_green_blue(tmp_path: Path, suffix: str) -> None:
    cv2.imwrite(str(tmp_path / f"a{suffix}"), PICTURE[..., ::-1])
    assert np.array_equal(read_rgb(tmp_path / f"a{suffix}"), PICTURE)


def test_a_jpeg_picture_is_read(tmp_path: Path) -> None:
    plain = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    cv2.imwrite(str(tmp_path / "a.jpg"), plain[..., ::-1])
    # One colour: only the rounding of the colour transform to 8 bits and back, about 1 for each of its terms.
    assert np.max(np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - plain)) <= 3


def test_a_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", PICTURE)[1].tobytes()
    for length in range(len(data) - 1, -1, -37):
        with pytest.raises(InputError):
            read_rgb(written(tmp_path, "a.jpg", data[:length]))


def test_pixels_stay_as_they_are_stored_whatever_the_orientation_tag(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", PICTURE)[1].tobytes()
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)  # orientation 6: to be shown turned by 90 degrees
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert np.array_equal(read_rgb(written(tmp_path, "turned.jpg", turned)), read_rgb(written(tmp_path, "a.jpg", data)))


def test_a_picture_of_16_bits_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE.astype(np.uint16) * 257)
    with pytest.raises(InputError, match="16 bits a channel") as caught:
        read_rgb(tmp_path / "a.png")
    assert "8 bits" in str(caught.value.hint)


def test_jpeg_that_claims_an_illegal_size_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(cv2.imencode(".jpg", PICTURE)[1].tobytes())
    monkeypatch.delattr(cv2, "imdecode")
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(InputError, match="60000 x 60000 px"):
        read_rgb(written(tmp_path, "a.jpg", bytes(data)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xd8\xff\xe0\0\4\0\0\0\0\0\0", "damaged at byte 8"),
        (b"\xff\xd8" + b"\xff\xe0\0\2" * 70_000, "more than 65536 segments"),
        (b"\xff\xd8\xff\xe0\xff\xff", "truncated"),
        (b"GIF89a", "neither PNG nor TIFF nor JPEG"),
    ],
)
def test_what_is_wrong_with_a_picture_is_said(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_rgb(written(tmp_path, "a.jpg", data))

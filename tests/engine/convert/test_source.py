"""Sets that are no sets, damaged, or made to harm: each its own error, nothing written."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine.convert.job import convert_set
from msdm_engine.convert.source import open_set
from msdm_engine.errors import InputError
from msdm_engine.output.png import png_bytes

Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture
def small_set(write_set: Callable[..., Path], tmp_path: Path) -> Path:
    mask = np.zeros((32, 40), np.uint16)
    mask[4:9, 5:12] = 1
    return write_set(tmp_path / "set", [mask, mask, mask])


def edit_record(folder: Path, change: Edit) -> None:
    """Changes the first record of the manifest."""
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    record = json.loads(lines[0])
    change(record)
    (folder / "manifest.jsonl").write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n")


def edit_header(folder: Path, change: Edit) -> None:
    header = json.loads((folder / "set.json").read_text())
    change(header)
    (folder / "set.json").write_text(json.dumps(header))


def refused(folder: Path, match: str, form: str = "coco") -> None:
    with pytest.raises(InputError, match=match):
        convert_set(folder, form, folder.parent / "out")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_that_is_no_set(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    refused(tmp_path / "set", r"is not a generated set: set\.json cannot be read")


def test_an_empty_set(write_set: Callable[..., Path], tmp_path: Path) -> None:
    write_set(tmp_path / "set", [])
    (tmp_path / "set" / "contact_sheet.png").touch()
    refused(tmp_path / "set", "holds no pair")


@pytest.mark.parametrize("file", ["images/000001.png", "masks/000002.png"])
def test_a_changed_file_is_named(small_set: Path, file: str) -> None:
    data = bytearray((small_set / file).read_bytes())
    data[-20] ^= 1
    (small_set / file).write_bytes(data)
    refused(small_set, rf"{file} is not as it was written")


@pytest.mark.parametrize("file", ["images/000001.png", "masks/000002.png"])
def test_a_missing_file_is_named(small_set: Path, file: str) -> None:
    (small_set / file).unlink()
    refused(small_set, rf"{file} is missing")


def test_a_file_that_is_not_listed_is_named(small_set: Path) -> None:
    shutil.copy(small_set / "masks/000000.png", small_set / "masks/000009.png")
    refused(small_set, r"masks/000009\.png is not listed")


def test_a_set_that_is_not_finished_says_so(small_set: Path) -> None:
    edit_header(small_set, lambda header: header.update(pairs=9))
    refused(small_set, "6 of 9 pairs are not there yet")


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "images/../../000000.png"])
def test_a_name_never_becomes_a_path(small_set: Path, name: str) -> None:
    edit_record(small_set, lambda record: record.update(image=name))
    refused(small_set, r"line 1 of manifest\.jsonl is no pair")


@pytest.mark.parametrize("index", [True, "0", -1, 0.0, 10**30, None])
def test_an_index_that_is_no_number_of_the_set(small_set: Path, index: Any) -> None:
    edit_record(small_set, lambda record: record.update(index=index))
    refused(small_set, r"line 1 of manifest\.jsonl is no pair")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**64),
        ("seed", True),
        ("height_px", 10**9),
        ("height_px", 32.0),
        ("width_px", "40"),
        ("morphology", None),
        ("morphology", "x" * 5000),
        ("metadata", []),
        ("metadata", {"assay": 3}),
        ("metadata", {"indication": "half a pair \ud800"}),
        ("metadata", {"indication": "nul \0"}),
        ("colour", "violet"),
        ("colour", {"foreground": {"mean": [1, 2], "std": [1, 2, 3]}}),
        ("colour", {"foreground": {"mean": [1, 2, float("nan")], "std": [1, 2, 3]}}),
        ("colour", {"background": {"mean": [1, 2, 3]}}),
    ],
)
def test_a_record_that_is_not_legal_names_the_key(small_set: Path, key: str, value: Any) -> None:
    edit_record(small_set, lambda record: record.update({key: value}))
    refused(small_set, f"pair 0: {key} is", "webdataset")


def test_a_record_that_is_no_json_once_written_is_refused(small_set: Path) -> None:
    edit_record(small_set, lambda record: record.update(more=float("inf")))
    refused(small_set, "pair 0: Out of range float", "webdataset")


@pytest.mark.parametrize(
    ("group", "key"), [("bundle", "sha256"), ("bundle", "name"), ("data", "licence"), ("data", "source")]
)
@pytest.mark.parametrize("value", [None, "", 3, "\ud800"])
def test_a_header_without_origin_names_the_key(small_set: Path, group: str, key: str, value: Any) -> None:
    edit_header(small_set, lambda header: header[group].update({key: value}))
    refused(small_set, rf"set\.json is damaged: {group}\.{key} is")


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        ("mask", np.zeros((32, 40, 3), np.uint8)),
        ("mask", np.zeros((32, 40), np.uint8)),
        ("mask", np.zeros((40, 32), np.uint16)),
        ("image", np.zeros((32, 40), np.uint8)),
        ("image", np.zeros((33, 40, 3), np.uint8)),
    ],
)
@pytest.mark.parametrize("form", ["hovernet", "imagefolder"])
def test_a_picture_of_another_kind_or_size_than_its_record_is_named(
    small_set: Path, kind: str, array: np.ndarray, form: str
) -> None:
    data = png_bytes(array)
    (small_set / f"{kind}s" / "000000.png").write_bytes(data)
    edit_record(small_set, lambda record: record.update({f"{kind}_sha256": hashlib.sha256(data).hexdigest()}))
    refused(small_set, rf"{kind}s.000000\.png is not the {kind} of its record", form)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", png_bytes(np.zeros((32, 40), np.uint16))[:-20]])
def test_a_file_that_is_no_picture_is_named(small_set: Path, data: bytes) -> None:
    (small_set / "masks" / "000000.png").write_bytes(data)
    edit_record(small_set, lambda record: record.update(mask_sha256=hashlib.sha256(data).hexdigest()))
    refused(small_set, r"masks.000000\.png cannot be read")


def test_a_png_whose_pixels_cannot_be_decoded_is_named(small_set: Path) -> None:
    whole = png_bytes(np.zeros((32, 40), np.uint16))
    at = whole.index(b"IDAT")
    body = b"IDAT" + b"no zlib stream"
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = whole[: at - 4] + chunk + whole[whole.index(b"IEND") - 4 :]
    (small_set / "masks" / "000000.png").write_bytes(data)
    edit_record(small_set, lambda record: record.update(mask_sha256=hashlib.sha256(data).hexdigest()))
    refused(small_set, r"masks.000000\.png cannot be decoded")


def test_a_file_that_changes_after_it_was_verified_is_named(small_set: Path) -> None:
    pairs, _ = open_set(small_set)
    shutil.copy(small_set / "images/000001.png", small_set / "images/000000.png")
    with pytest.raises(InputError, match=r"images.000000\.png has changed since the set was verified"):
        next(iter(pairs)).image()


def test_a_manifest_that_changes_after_it_was_verified_is_named(small_set: Path) -> None:
    pairs, _ = open_set(small_set)
    lines = (small_set / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (small_set / "manifest.jsonl").write_bytes(b"".join(lines[:2]))
    with pytest.raises(InputError, match=r"manifest\.jsonl has changed since the set was verified"):
        list(pairs)

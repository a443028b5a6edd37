from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from msdm_engine.errors import InputError, OutputError
from msdm_engine.layouts.map_set import SHEET_FILE, MapSet, plain, read_maps
from msdm_engine.layouts.request import LayoutRequest
from msdm_engine.output.png import png_bytes, png_text

LABELS = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


def write(out: Path) -> None:
    with MapSet(out, "record.json") as maps:
        maps.add("a.png", LABELS, {"statistics": {"cut": float("nan")}}, {"Seed": "3"})
        maps.show(LABELS)
        maps.finish({"format": "test/1"})


def test_maps_record_and_sheet(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    write(out)
    assert sorted(path.name for path in out.iterdir()) == ["a.png", SHEET_FILE, "record.json"]
    record = json.loads((out / "record.json").read_text())
    assert record["format"] == "test/1"
    assert record["maps"][0]["statistics"] == {"cut": None}
    assert "not for diagnosis" in record["notice"]
    text = png_text((out / "a.png").read_bytes())
    assert text["Seed"] == "3"
    assert "not for diagnosis" in text["Comment"]
    # Read back without the sheet, which is no instance map.
    [(path, labels)] = read_maps(out)
    assert path.name == "a.png"
    assert np.array_equal(labels, LABELS)


def test_an_empty_folder_is_taken_and_a_full_one_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    with pytest.raises(OutputError, match="exists and is not empty"):
        write(tmp_path / "out")
    (tmp_path / "file").write_text("something")
    with pytest.raises(OutputError, match="exists and is not empty"):
        write(tmp_path / "file")


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with MapSet(tmp_path / "a" / "b", "record.json") as maps:
            maps.add("a.png", LABELS, {}, {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("something")
    with pytest.raises(OutputError, match="cannot be made"):
        write(tmp_path / "file" / "out")


def test_a_folder_that_fills_up_meanwhile_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with MapSet(out, "record.json") as maps:
        maps.add("a.png", LABELS, {}, {})
        maps.show(LABELS)
        out.mkdir()
        (out / "theirs").write_text("something")
        with pytest.raises(OutputError, match="cannot be made"):
            maps.finish({})
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(out) == ["theirs"]


def test_a_folder_with_only_a_sheet_has_no_masks(tmp_path: Path) -> None:
    (tmp_path / SHEET_FILE).write_bytes(png_bytes(np.zeros((9, 9, 3), np.uint8)))
    with pytest.raises(InputError, match="holds no mask"):
        read_maps(tmp_path)


def test_plain_values() -> None:
    request = LayoutRequest("round", 64, 64, 1)
    assert plain({"r": request, "n": np.int64(3), "f": (float("inf"), 0.5)}) == {
        "r": {**vars(request)},
        "n": 3,
        "f": [None, 0.5],
    }

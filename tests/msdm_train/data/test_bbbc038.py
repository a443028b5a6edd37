from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msdm_engine.errors import InputError, RequestError
from msdm_train.data.bbbc038 import Bbbc038Reader
from msdm_train.data.sources import open_source
from msdm_train.data.tiles import TileReader


def write_picture(root: Path, name: str, masks: list[tuple[int, int, int, int]], alpha: bool = False) -> np.ndarray:
    """A picture of 20 x 30 px whose nuclei are rectangles (y0, x0, y1, x1), one file each."""
    folder = root / name
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    image = np.random.default_rng(len(name)).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if alpha:
        stored = np.dstack([stored, np.full((20, 30), 255, np.uint8)])
    cv2.imwrite(str(folder / "images" / f"{name}.png"), stored)
    for i, (y0, x0, y1, x1) in enumerate(masks):
        mask = np.zeros((20, 30), np.uint8)
        mask[y0:y1, x0:x1] = 255
        cv2.imwrite(str(folder / "masks" / f"{i}.png"), mask)
    return image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "stage1"
    write_picture(folder, "a", [(2, 2, 6, 8), (10, 10, 15, 20)])
    write_picture(folder, "b", [(0, 0, 4, 4), (2, 2, 8, 8)])
    return folder


def table(root: Path, *lines: str, columns: str = "id,field,split,description") -> Path:
    path = root.parent / "splits.csv"
    path.write_text("\n".join([columns, *lines]) + "\n")
    return path


def test_one_file_a_nucleus_becomes_an_instance_map(root: Path) -> None:
    write_picture(root, "c", [], alpha=True)
    a, b, c = Bbbc038Reader(root).fields()
    expected = np.zeros((20, 30), np.uint16)
    expected[2:6, 2:8], expected[10:15, 10:20] = 1, 2
    np.testing.assert_array_equal(a.instances, expected)
    # Where two masks claim a pixel, the first has it.
    assert (b.instances == 1).sum() == 16
    assert (b.instances == 2).sum() == 36 - 4
    assert not c.instances.any()
    assert c.image.shape == (20, 30, 3)
    assert [field.split for field in (a, b, c)] == ["train"] * 3
    assert [(r.y0, r.x0, r.y1, r.x1) for r in a.regions] == [(0, 0, 20, 30)]


def test_colours_are_rgb(tmp_path: Path) -> None:
    image = write_picture(tmp_path, "x", [(0, 0, 2, 2)])
    (field,) = Bbbc038Reader(tmp_path).fields()
    np.testing.assert_array_equal(field.image, image)


def test_the_table_says_split_and_description(root: Path) -> None:
    path = table(root, "a,f1,val,round nuclei", "b,f2,test,", "elsewhere,f3,train,")
    a, b = Bbbc038Reader(root, path, name="set", licence="CC0-1.0", source="here").fields()
    assert (a.split, a.regions[0].description) == ("val", "round nuclei")
    assert (b.split, b.regions[0].description) == ("test", "")


def _remove_masks(root: Path) -> None:
    for path in (root / "a" / "masks").iterdir():
        path.unlink()
    (root / "a" / "masks").rmdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "a" / "images" / "a.png").unlink(), r"a\.png cannot be read"),
        (lambda root: (root / "a" / "masks" / "0.png").write_text("x"), r"masks/0\.png cannot be read"),
        (_remove_masks, "a has no folder masks"),
        (lambda root: cv2.imwrite(str(root / "a" / "masks" / "9.png"), np.zeros((5, 5), np.uint8)), r"9\.png is"),
    ],
)
def test_errors_name_the_file(root: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(root)
    with pytest.raises(InputError, match=message):
        list(Bbbc038Reader(root).fields())


@pytest.mark.parametrize(
    ("lines", "columns", "message"),
    [
        (["a,f1,train,"], "id,field,split,description", "picture b is not in the table"),
        (["a,f,train,", "b,f,val,"], "id,field,split,description", "field f lies in two splits"),
        (["a,f,train,", "b,f2,dev,"], "id,field,split,description", "row .*'b'.* legal split"),
        (["a,,train,", "b,f2,val,"], "id,field,split,description", "row .*'a'.* lacks a field"),
        (["a,train"], "id,split", "lacks the column.*field"),
        ([], "id,field,split", "no row"),
    ],
)
def test_errors_of_the_table(root: Path, lines: list[str], columns: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(Bbbc038Reader(root, table(root, *lines, columns=columns)).fields())


def test_no_table_and_no_picture(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv cannot be read"):
        Bbbc038Reader(root, tmp_path / "none.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no picture"):
        Bbbc038Reader(tmp_path / "empty")


def test_layouts_are_chosen_by_name(root: Path, tmp_path: Path) -> None:
    said = {"name": "n", "licence": "l", "source": "s"}
    reader = open_source(root, "bbbc038", None, **said)
    assert isinstance(reader, Bbbc038Reader)
    assert (reader.name, reader.licence, reader.source) == ("n", "l", "s")
    with pytest.raises(InputError, match="is not a folder"):
        open_source(tmp_path / "none", "bbbc038", None, **said)
    with pytest.raises(RequestError, match="--splits"):
        open_source(root, "tiles", table(root), **said)
    (tmp_path / "metadata.csv").write_text("id,field,row,col,split,description\na,f,0,0,train,\n")
    assert isinstance(open_source(tmp_path, "tiles", None, **said), TileReader)

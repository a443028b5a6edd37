from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msdm_engine.errors import InputError
from msdm_train.data.reader import Field
from msdm_train.data.tiles import TileReader, merge_across_borders

H, W = 20, 24
COLUMNS = "id,field,row,col,split,stain,description"


def write_table(root: Path, lines: list[str]) -> None:
    (root / "metadata.csv").write_text("\n".join([COLUMNS, *lines]) + "\n")


def write_tiles(root: Path, image: np.ndarray, labels: np.ndarray, skip: tuple[int, int] | None = None) -> list[str]:
    """Cuts a field into tiles of H x W, each with its own numbering 1..n as in the data set; returns the table."""
    lines = []
    for kind in ("images", "masks"):
        (root / kind).mkdir(exist_ok=True)
    for row in range(labels.shape[0] // H):
        for col in range(labels.shape[1] // W):
            if (row, col) == skip:
                continue
            cut = np.s_[row * H : (row + 1) * H, col * W : (col + 1) * W]
            name = f"tile{row}{col}"
            names, own = np.unique(labels[cut], return_inverse=True)
            own = own.reshape(H, W) + (names[0] != 0)
            cv2.imwrite(str(root / "images" / f"{name}.png"), cv2.cvtColor(image[cut], cv2.COLOR_RGB2BGR))
            cv2.imwrite(str(root / "masks" / f"{name}.png"), own.astype(np.uint16))
            lines.append(f"{name},f,{row},{col},train,lilac,tile {row} {col}")
    write_table(root, lines)
    return lines


def picture(rows: int = 2, cols: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows * H, cols * W, 3), dtype=np.uint8)


def field_of(root: Path) -> Field:
    (field,) = TileReader(root, licence="CC0-1.0").fields()
    return field


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    """The nuclei as sets of pixels, whatever their numbers."""
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels) if label}


def test_tiles_are_stitched_and_cut_nuclei_are_whole_again(tmp_path: Path) -> None:
    labels = np.zeros((2 * H, 2 * W), np.uint16)
    labels[3:9, 4:12] = 1  # inside a tile
    labels[4:10, W - 5 : W + 6] = 2  # across the vertical border
    labels[H - 3 : H + 5, 6:14] = 3  # across the horizontal border
    labels[H - 4 : H + 4, W - 4 : W + 4] = 4  # across the corner of four tiles
    labels[30:36, 40:46] = 5
    image = picture()
    write_tiles(tmp_path, image, labels)
    field = field_of(tmp_path)
    np.testing.assert_array_equal(field.image, image)
    assert partition(field.instances) == partition(labels)
    assert field.instances.dtype == np.uint16
    assert set(np.unique(field.instances)) == set(range(6))
    assert [(r.y0, r.x0, r.y1, r.x1) for r in field.regions] == [
        (0, 0, H, W), (0, W, H, 2 * W), (H, 0, 2 * H, W), (H, W, 2 * H, 2 * W),
    ]  # fmt: skip
    assert field.regions[1].description == "tile 0 1"
    assert field.regions[1].tags == {"stain": "lilac"}


def test_neighbours_that_touch_across_a_border_stay_two(tmp_path: Path) -> None:
    labels = np.zeros((H, 2 * W), np.uint16)
    # Ten pixels of each lie at the border, two of them opposite the other: a fifth of the cut edge.
    labels[0:10, W - 6 : W] = 1
    labels[8:18, W : W + 6] = 2
    write_tiles(tmp_path, picture(1), labels)
    assert partition(field_of(tmp_path).instances) == partition(labels)


def test_a_nucleus_goes_on_in_its_longest_contact_only(tmp_path: Path) -> None:
    labels = np.zeros((H, 2 * W), np.uint16)
    labels[0:10, W - 6 : W] = 1
    labels[0:3, W : W + 6] = 2  # three pixels of contact
    labels[3:10, W : W + 6] = 3  # seven: this one is the rest of nucleus 1
    write_tiles(tmp_path, picture(1), labels)
    expected = labels.copy()
    expected[labels == 3] = 1
    assert partition(field_of(tmp_path).instances) == partition(expected)


def test_a_field_with_a_hole(tmp_path: Path) -> None:
    labels = np.zeros((2 * H, 2 * W), np.uint16)
    labels[5:10, 5:10] = 1
    image = picture()
    write_tiles(tmp_path, image, labels, skip=(1, 1))
    field = field_of(tmp_path)
    assert field.image.shape == (2 * H, 2 * W, 3)
    assert not field.image[H:, W:].any()
    assert len(field.regions) == 3
    assert all((r.y0, r.x0) != (H, W) for r in field.regions)


def test_more_nuclei_than_sixteen_bits_hold() -> None:
    labels = np.arange(1, 256 * 257 + 1, dtype=np.int32).reshape(256, 257)
    with pytest.raises(InputError, match="65792 nuclei"):
        merge_across_borders(labels, range(0), range(0))


def test_a_field_full_of_nuclei_keeps_them_apart() -> None:
    labels = np.arange(1, 7, dtype=np.int32).reshape(2, 3)
    np.testing.assert_array_equal(merge_across_borders(labels, range(0), range(0)), labels)


def _remove(path: str) -> Callable[[Path, list[str]], Any]:
    return lambda root, _: (root / path).unlink()


def _text_instead(path: str) -> Callable[[Path, list[str]], Any]:
    return lambda root, _: (root / path).write_text("no picture")


def _mask_of(shape: tuple[int, int]) -> Callable[[Path, list[str]], Any]:
    return lambda root, _: cv2.imwrite(str(root / "masks" / "tile01.png"), np.zeros(shape, np.uint16))


def _second_row(line: str) -> Callable[[Path, list[str]], Any]:
    return lambda root, lines: write_table(root, [lines[0], line, *lines[2:]])


def _tile_of_another_size(root: Path, _: list[str]) -> None:
    cv2.imwrite(str(root / "images" / "tile01.png"), np.zeros((H, W + 2, 3), np.uint8))
    cv2.imwrite(str(root / "masks" / "tile01.png"), np.zeros((H, W + 2), np.uint16))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove("metadata.csv"), r"no metadata\.csv"),
        (lambda root, _: (root / "metadata.csv").write_text("id,field\na,b\n"), "column.*col, description, row, split"),
        (lambda root, _: write_table(root, []), "no row"),
        (_second_row("tile01,f,one,1,train,lilac,x"), r"metadata\.csv, line 3: row is 'one'"),
        (_second_row("tile01,f,-1,1,train,lilac,x"), "line 3: row is '-1'"),
        (_second_row("tile01,f,0"), "line 3: nothing in the column col"),
        (_second_row(",f,0,1,train,lilac,x"), "line 3: nothing in the column id"),
        (_second_row("tile01,f,0,1,test,lilac,x"), r"field f has the splits \['test', 'train'\]"),
        (lambda root, _: write_table(root, ["tile00,f,0,0,dev,,x"]), r"field f has the splits \['dev'\]"),
        (_second_row("tile01,f,0,0,train,lilac,x"), "tile01 of field f lies where another does"),
        (_remove("images/tile01.png"), r"images/tile01\.png cannot be read"),
        (_remove("masks/tile01.png"), r"masks/tile01\.png cannot be read"),
        (_text_instead("masks/tile01.png"), r"masks/tile01\.png cannot be read"),
        (_mask_of((H, W - 1)), r"mask of .*tile01\.png is \(20, 23\)"),
        (_tile_of_another_size, r"tile tile01 is \(20, 26\)"),
    ],
)
def test_errors_name_the_file_or_the_row(
    tmp_path: Path, damage: Callable[[Path, list[str]], Any], message: str
) -> None:
    damage(tmp_path, write_tiles(tmp_path, picture(1), np.zeros((H, 2 * W), np.uint16)))
    with pytest.raises(InputError, match=message):
        list(TileReader(tmp_path).fields())

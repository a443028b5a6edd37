"""Reader of the tile pack: ``images/``, ``masks/`` and ``metadata.csv`` with field, row and column.

Tiles of one field are stitched back, and a nucleus that a tile border cut is one nucleus again.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from msdm_engine.errors import InputError
from msdm_train.data.reader import SPLITS, Field, Region

COLUMNS = ("id", "field", "row", "col", "split", "description")
TAGS = ("stain", "architecture", "nuclear_size")


def read_image(path: Path, flags: int) -> np.ndarray:
    """Reads an image file with OpenCV flags; the error names the file."""
    array = cv2.imread(str(path), flags)
    if array is None:
        raise InputError(f"{path} cannot be read as an image", note="missing, truncated or not an image format")
    return array


class TileReader:
    """Fields stitched from the tiles of a folder.

    Raises:
        InputError: a file is missing or unreadable, sizes of image and mask differ, a row lacks a column or
            holds no number where one belongs, two tiles share a place, or a field lies in two splits.
    """

    def __init__(self, root: Path, *, name: str = "", licence: str = "unknown", source: str = "") -> None:
        self.root = root
        self.name, self.licence, self.source = name or root.name, licence, source or root.name
        table = root / "metadata.csv"
        if not table.is_file():
            raise InputError(f"{root} has no metadata.csv", note=f"needed columns: {', '.join(COLUMNS)}")
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = set(COLUMNS) - set(rows.fieldnames or ())
            if missing:
                raise InputError(f"{table} lacks the column(s) {', '.join(sorted(missing))}")
            self._rows = list(rows)
        if not self._rows:
            raise InputError(f"{table} has no row", note="one for each tile")
        for line, row in enumerate(self._rows, start=2):
            _check_row(f"{table}, line {line}", row)

    def fields(self) -> Iterator[Field]:
        """Yields each field, in the order of its name."""
        by_field: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in self._rows:
            by_field[row["field"]].append(row)
        for field_id in sorted(by_field):
            yield self._stitch(field_id, by_field[field_id])

    def _stitch(self, field_id: str, rows: list[dict[str, str]]) -> Field:
        splits = {row["split"] for row in rows}
        if len(splits) != 1 or not splits <= set(SPLITS):
            raise InputError(
                f"field {field_id} has the splits {sorted(splits)}", note="one of train, val, test a field"
            )
        tiles = {}
        for row in rows:
            key = (int(row["row"]), int(row["col"]))
            if key in tiles:
                raise InputError(
                    f"tile {row['id']} of field {field_id} lies where another does", note=f"row, col {key}"
                )
            tiles[key] = self._tile(row)
        height, width = next(iter(tiles.values()))[1].shape
        n_rows, n_cols = (1 + max(key[axis] for key in tiles) for axis in (0, 1))
        image = np.zeros((n_rows * height, n_cols * width, 3), np.uint8)
        labels = np.zeros((n_rows * height, n_cols * width), np.int32)
        regions = []
        for row in rows:
            key = (int(row["row"]), int(row["col"]))
            tile, mask = tiles[key]
            if mask.shape != (height, width):
                raise InputError(f"tile {row['id']} is {mask.shape}, others of its field {(height, width)}")
            y, x = key[0] * height, key[1] * width
            image[y : y + height, x : x + width] = tile
            labels[y : y + height, x : x + width] = np.where(mask > 0, mask + labels.max(), 0)
            tags = {name: row[name] for name in TAGS if row.get(name)}
            regions.append(Region(y, x, y + height, x + width, tags, row["description"]))
        merged = merge_across_borders(
            labels, range(height, image.shape[0], height), range(width, image.shape[1], width)
        )
        return Field(field_id, splits.pop(), image, merged, tuple(regions))

    def _tile(self, row: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
        path = self.root / "images" / f"{row['id']}.png"
        image = cv2.cvtColor(read_image(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        mask = read_image(self.root / "masks" / f"{row['id']}.png", cv2.IMREAD_UNCHANGED)
        if mask.shape != image.shape[:2]:
            raise InputError(f"mask of {path} is {mask.shape}, the image {image.shape[:2]}")
        return image, mask.astype(np.int32)


def _check_row(where: str, row: dict[str, str]) -> None:
    for column in COLUMNS:
        if row[column] is None or (column != "description" and not row[column].strip()):
            raise InputError(f"{where}: nothing in the column {column}")
    for column in ("row", "col"):
        if not (row[column].isascii() and row[column].isdigit()):
            raise InputError(f"{where}: {column} is '{row[column]}'", note="a whole number from 0 on")


def merge_across_borders(labels: np.ndarray, border_rows: range, border_cols: range) -> np.ndarray:
    """Joins nuclei that tile borders cut.

    Two labels that meet across a border are one nucleus when each is the other's longest contact there and
    the contact covers at least half of the shorter cut edge; two neighbours that merely touch are not.

    Args:
        labels: [H, W] int32, labels unique over the whole field.
        border_rows, border_cols: first row (column) behind each border.

    Returns:
        [H, W] uint16 with labels 1..n without gaps.
    """
    lines = [(labels[y - 1], labels[y]) for y in border_rows] + [(labels[:, x - 1], labels[:, x]) for x in border_cols]
    parent = np.arange(labels.max() + 1)
    for before, after in lines:
        contact: dict[tuple[int, int], int] = defaultdict(int)
        for a, b in zip(before.tolist(), after.tolist(), strict=True):
            if a and b:
                contact[a, b] += 1
        edge_a, edge_b = np.bincount(before, minlength=len(parent)), np.bincount(after, minlength=len(parent))
        for (a, b), n in contact.items():
            best_a = max(m for (c, _), m in contact.items() if c == a)
            best_b = max(m for (_, d), m in contact.items() if d == b)
            if n == best_a == best_b and 2 * n >= min(edge_a[a], edge_b[b]):
                parent[_root(parent, b)] = _root(parent, a)
    roots = np.array([_root(parent, i) for i in range(len(parent))])
    names, merged = np.unique(roots[labels], return_inverse=True)
    offset = 0 if names[0] == 0 else 1
    if names.size > np.iinfo(np.uint16).max:
        raise InputError(f"a field of {names.size} nuclei", note="at most 65535", hint="split the field in two")
    return (merged.reshape(labels.shape) + offset).astype(np.uint16)


def _root(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        i = int(parent[i])
    return i

"""Reader of BBBC038's own layout: ``<id>/images/<id>.png`` and ``<id>/masks/*.png``, one file a nucleus."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from msdm_engine.errors import InputError
from msdm_train.data.reader import SPLITS, Field, Region
from msdm_train.data.tiles import read_image


class Bbbc038Reader:
    """Each picture as a field of its own; which split it belongs to comes from a table.

    The set's tiles are cut from larger fields, and tiles of one field must share a split. The layout does not
    say which do, so without a table everything is ``train`` and nothing is held out.

    Args:
        splits: CSV with the columns ``id``, ``field``, ``split`` and optionally ``description``.

    Raises:
        InputError: no picture found, a file is unreadable, or the table splits a field.
    """

    def __init__(
        self, root: Path, splits: Path | None = None, *, name: str = "", licence: str = "unknown", source: str = ""
    ) -> None:
        self.name, self.licence, self.source = name or root.name, licence, source or root.name
        self._folders = sorted(path for path in root.iterdir() if (path / "images").is_dir())
        if not self._folders:
            raise InputError(f"{root} has no picture", note="expected <id>/images/<id>.png and <id>/masks/*.png")
        self._table = _read_splits(splits) if splits is not None else {}

    def fields(self) -> Iterator[Field]:
        """Yields each picture in the order of its id."""
        for folder in self._folders:
            row = self._table.get(folder.name)
            if self._table and row is None:
                raise InputError(
                    f"picture {folder.name} is not in the table of splits", hint="add a row, or move it away"
                )
            image = read_image(folder / "images" / f"{folder.name}.png", cv2.IMREAD_COLOR)
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            instances = _merge(folder, image.shape[:2])
            description = (row or {}).get("description") or ""
            region = Region(0, 0, image.shape[0], image.shape[1], {}, description)
            yield Field(folder.name, row["split"] if row else "train", image, instances, (region,))


def _merge(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    if not (folder / "masks").is_dir():
        raise InputError(f"{folder} has no folder masks", note="a picture without nuclei has an empty one")
    instances = np.zeros(shape, np.uint16)
    for label, path in enumerate(sorted((folder / "masks").glob("*.png")), start=1):
        mask = read_image(path, cv2.IMREAD_GRAYSCALE)
        if mask.shape != shape:
            raise InputError(f"{path} is {mask.shape}, its picture {shape}")
        instances[(mask > 0) & (instances == 0)] = label
    return instances


def _read_splits(path: Path) -> dict[str, dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    missing = {"id", "field", "split"} - set(rows[0] if rows else ())
    if missing:
        raise InputError(f"{path} lacks the column(s) {', '.join(sorted(missing))}", note="or has no row")
    by_field: dict[str, str] = {}
    for row in rows:
        if row.get("split") not in SPLITS or not row.get("field"):
            raise InputError(f"{path}: row {row} lacks a field or a legal split", note="train, val or test")
        if by_field.setdefault(row["field"], row["split"]) != row["split"]:
            raise InputError(f"{path}: field {row['field']} lies in two splits", note="a split never cuts a field")
    return {row["id"]: row for row in rows}

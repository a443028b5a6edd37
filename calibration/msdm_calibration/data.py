"""Calibration conditions: windows of a packed data set, checked, each as the request that asks for its like.

The data set is the file that `msdm-train prepare` writes: safetensors ``image/<field>`` [H, W, 3] uint8,
``instances/<field>`` [H, W] uint16 and, with nucleus classes, ``classes/<field>``; one JSON text under ``msdm`` in its
metadata. Calibration reads the file, not the code that wrote it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.conditions.colour import colour_from_image
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.errors import BackendError, InputError, RequestError
from msdm_engine.pairs import MAX_SIDE_PX, MIN_SIDE_PX, PairRequest

PACK_FORMAT = 1
#: ``test`` is not here: what decides how a bundle computes may not have seen what it is judged on.
SPLITS = ("train", "val")
MAX_WINDOWS = 100_000
#: Places that are looked at for each window wanted; a place without nuclei is passed over.
TRIES = 32


@dataclass(frozen=True)
class Box:
    """A region of a field, pixels [y0:y1, x0:x1], with its metadata."""

    y0: int
    x0: int
    y1: int
    x1: int
    metadata: Metadata

    def places(self, side_px: int) -> tuple[int, int]:
        """In how many rows and columns a square window can begin."""
        return max(0, self.y1 - self.y0 - side_px + 1), max(0, self.x1 - self.x0 - side_px + 1)


@dataclass(frozen=True)
class FieldEntry:
    """What the header says of a field."""

    id: str
    split: str
    height_px: int
    width_px: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Window:
    """A square window that was read and checked: where it lies, and the request that it lends its conditions to."""

    field: str
    split: str
    y: int
    x: int
    request: PairRequest


class CalibrationData:
    """A packed data set, opened for reading; close it with ``with``.

    Args:
        path: the file.
        n_classes: nucleus classes of the bundle that is calibrated.

    Raises:
        InputError: no packed data set, or one with another number of classes.
    """

    def __init__(self, path: Path, n_classes: int) -> None:
        self.path = path
        raw, self._file = _open(path)
        try:
            self.name, self.licence, self.n_classes = str(raw["name"]), str(raw["licence"]), int(raw["n_classes"])
            self.fields = tuple(_field(entry) for entry in raw["fields"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} has a malformed header: {error!r}", hint="prepare the data again") from error
        if self.n_classes != n_classes:
            raise InputError(
                f"{path} has {self.n_classes or 'no'} nucleus classes, the bundle {n_classes or 'none'}",
                hint="calibrate on data with the classes that the bundle was trained on",
            )

    def windows(self, count: int, side_px: int, seed: int = 0, splits: Sequence[str] = SPLITS) -> tuple[Window, ...]:
        """Windows spread evenly over the fields, each inside one region and with at least one nucleus.

        They are a pure function of the file and the arguments. Fields take turns, so the first few windows are as
        spread as all.

        Args:
            count: 1 to 100,000.
            side_px: side of each window in pixels.
            seed: of the places, and of the noise of the requests.
            splits: ``train``, ``val`` or both.

        Raises:
            RequestError: an argument out of range, or the split ``test``.
            InputError: the split has no field; a field has no room for windows of this size, no nuclei, not enough
                different windows, pixels of another type, or values that are not finite. It names the field.
        """
        _check(count, side_px, splits)
        fields = [field for field in self.fields if field.split in splits]
        if not fields:
            raise InputError(f"{self.path} has no field in {' or '.join(splits)}", hint="prepare the data again")
        rounds: list[tuple[int, int, FieldEntry, Box, int, int]] = []
        for i, field in enumerate(fields):
            quota = (i + 1) * count // len(fields) - i * count // len(fields)
            found = self._found(field, quota, side_px, seed) if quota else []
            rounds += [(turn, i, field, *place) for turn, place in enumerate(found)]
        rounds.sort(key=lambda entry: entry[:2])
        return tuple(
            Window(field.id, field.split, y, x, self._request(index, seed, field, box, y, x, side_px))
            for index, (_, _, field, box, y, x) in enumerate(rounds)
        )

    def _found(self, field: FieldEntry, quota: int, side_px: int, seed: int) -> list[tuple[Box, int, int]]:
        """Different places in one field at which there are nuclei."""
        rooms = [box.places(side_px) for box in field.boxes]
        ends = np.cumsum([rows * columns for rows, columns in rooms])
        total = int(ends[-1]) if rooms else 0
        if not total:
            sizes = ", ".join(f"{b.x1 - b.x0} x {b.y1 - b.y0}" for b in field.boxes) or "none"
            raise InputError(
                f"field {field.id} of {self.path} has no room for a window of {side_px} px",
                note=f"its regions are {sizes} px",
                hint="a smaller --size",
            )
        # Keyed by the field's name: its windows stay when other fields come or go.
        rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(field.id.encode())]))
        found = []
        for place in rng.choice(total, min(total, TRIES * quota), replace=False):
            number = int(np.searchsorted(ends, place, side="right"))
            box, (rows, columns) = field.boxes[number], rooms[number]
            row, column = divmod(int(place) - int(ends[number]) + rows * columns, columns)
            y, x = box.y0 + row, box.x0 + column
            if self._slice("instances", field, y, x, side_px).any():
                found.append((box, y, x))
                if len(found) == quota:
                    return found
        looked = min(total, TRIES * quota)
        if not found:
            raise InputError(
                f"field {field.id} of {self.path} has no nuclei in {looked} windows of {side_px} px",
                hint="leave fields without nuclei out of the data set",
            )
        raise InputError(
            f"field {field.id} of {self.path} has {len(found)} different windows of {side_px} px with nuclei",
            note=f"{quota} are wanted of it; {looked} places were looked at",
            hint="fewer --windows, or a smaller --size",
        )

    def _request(self, index: int, seed: int, field: FieldEntry, box: Box, y: int, x: int, side_px: int) -> PairRequest:
        """Asks for a pair under all conditions of the window: its mask, its colour, its metadata."""
        image = self._slice("image", field, y, x, side_px)
        instances = self._slice("instances", field, y, x, side_px)
        classes = None
        if self.n_classes:
            table = self._file.get_tensor(f"classes/{field.id}")
            classes = {int(label): int(table[label]) for label in np.unique(instances) if label}
        return PairRequest(
            index,
            seed,
            height_px=side_px,
            width_px=side_px,
            instances=instances,
            colour=colour_from_image(image, instances),
            metadata=box.metadata,
            morphology=f"field {field.id}",
            classes=classes,
        )

    def _slice(self, kind: str, field: FieldEntry, y: int, x: int, side_px: int) -> np.ndarray:
        """Pixels of a window, checked."""
        where = f"field {field.id} of {self.path}, window at row {y}, column {x}"
        shape = (field.height_px, field.width_px, 3) if kind == "image" else (field.height_px, field.width_px)
        stored = self._file.get_slice(f"{kind}/{field.id}")
        if tuple(stored.get_shape()) != shape:
            raise InputError(
                f"{kind} of field {field.id} of {self.path} has the shape {tuple(stored.get_shape())}",
                note=f"the header says {shape}",
                hint="prepare the data again",
            )
        values: np.ndarray = stored[y : y + side_px, x : x + side_px]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError(
                f"{kind} of {where}: {np.count_nonzero(~np.isfinite(values))} values are not finite",
                hint="repair the picture or leave the field out",
            )
        wanted = np.uint8 if kind == "image" else np.uint16
        if values.dtype != wanted:
            raise InputError(f"{kind} of {where} is {values.dtype}", note=f"a packed data set has {wanted.__name__}")
        return values

    def __enter__(self) -> CalibrationData:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__(None, None, None)


def _check(count: int, side_px: int, splits: Sequence[str]) -> None:
    if not 1 <= count <= MAX_WINDOWS:
        raise RequestError(f"{count} windows", note=f"1 to {MAX_WINDOWS}")
    if not MIN_SIDE_PX <= side_px <= MAX_SIDE_PX:
        raise RequestError(f"windows of {side_px} px", note=f"{MIN_SIDE_PX} to {MAX_SIDE_PX}")
    for split in splits:
        if split not in SPLITS:
            note = f"legal: {', '.join(SPLITS)}"
            if split == "test":
                note += "; test is kept for the evaluation, and decides nothing"
            raise RequestError(f"split '{split}' cannot be calibrated on", note=note)


def _open(path: Path) -> tuple[dict[str, Any], Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise BackendError(
            "packed data sets need safetensors, which is not installed", hint="pip install 'msdm[calibrate]'"
        ) from error
    try:
        file = safe_open(path, framework="numpy")
        raw = json.loads((file.metadata() or {})["msdm"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} is not a packed data set: {error}", hint="make one with `msdm-train prepare SOURCE --out PACK`"
        ) from error
    if not isinstance(raw, dict) or raw.get("format") != PACK_FORMAT:
        raise InputError(f"{path} has an unknown format version", hint="prepare the data again")
    return raw, file


def _field(raw: dict[str, Any]) -> FieldEntry:
    height, width = int(raw["height_px"]), int(raw["width_px"])
    boxes = []
    for region in raw["regions"]:
        y0, x0, y1, x1 = (int(region[key]) for key in ("y0", "x0", "y1", "x1"))
        if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
            raise ValueError(f"field {raw['id']} of {width} x {height} px has the region {(y0, x0, y1, x1)}")
        words = (str(region.get(key, "")) for key in ("assay", "indication", "description"))
        boxes.append(Box(y0, x0, y1, x1, Metadata(*words)))
    return FieldEntry(str(raw["id"]), str(raw["split"]), height, width, tuple(boxes))

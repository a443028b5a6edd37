"""A folder of instance maps with a record of what made them and a coloured contact sheet: whole, or not there."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import OutputError
from msdm_engine.inputs.masks import mask_files, read_instances
from msdm_engine.layouts.sheet import MapSheet
from msdm_engine.output.png import png_bytes, write_atomically
from msdm_engine.output.records import SHEET_FILE

NOTICE = "drawn or edited instance map of msdm, no annotation of a tissue; not for diagnosis or any clinical use"


def read_maps(folder: Path) -> list[tuple[Path, NDArray[np.uint16]]]:
    """The instance maps of a folder by name, without the contact sheet that a map set brings along.

    Raises:
        InputError: no folder, no mask in it, or a file that is no instance map.
    """
    return [(path, read_instances(path)) for path in mask_files(folder)]


class MapSet:
    """Writes maps into a folder; use with ``with``. Nothing is left behind after an error.

    Everything is written into a folder beside the one asked for, which takes its name at the end.

    Args:
        folder: must not exist or be empty.
        record_file: name of the JSON record in it.

    Raises:
        OutputError: the folder holds something, or cannot be written.
    """

    def __init__(self, folder: Path, record_file: str) -> None:
        self.folder, self.record_file = folder.resolve(), record_file
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"output {folder} exists and is not empty", hint="choose another --out")
        self._part = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.part")
        self._made = [parent for parent in self.folder.parents if not parent.exists()]
        self._records: list[dict[str, Any]] = []
        self._sheet = MapSheet()
        try:
            self._part.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"output {folder} cannot be made: {error.strerror or error}") from error

    def __enter__(self) -> MapSet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._part, ignore_errors=True)
        if kind is not None:
            for parent in self._made:
                with contextlib.suppress(OSError):  # somebody else put something there
                    parent.rmdir()

    def show(self, labels: NDArray[np.uint16], part_of: NDArray[np.uint8] | None = None) -> None:
        """Adds a map to the contact sheet, while there is room."""
        self._sheet.add(labels, part_of)

    def add(self, name: str, labels: NDArray[np.uint16], record: Mapping[str, Any], text: Mapping[str, str]) -> None:
        """Writes [H, W] labels as a 16-bit PNG.

        Args:
            record: of this map, for the JSON record; file name and hash come before it.
            text: metadata of the PNG.
        """
        base = {"Software": f"msdm {version('msdm')}", "Comment": NOTICE}
        data = png_bytes(labels, {**base, **text})
        write_atomically(self._part / name, data)
        self._records.append({"file": name, "sha256": hashlib.sha256(data).hexdigest(), **record})

    def finish(self, header: Mapping[str, Any]) -> None:
        """Writes the record and the contact sheet, and gives the folder its name."""
        versions = {"msdm": version("msdm"), "numpy": np.__version__, "opencv": cv2.__version__}
        record = plain({"notice": NOTICE, "versions": versions, **header, "maps": self._records})
        data = json.dumps(record, indent=1, allow_nan=False) + "\n"
        write_atomically(self._part / self.record_file, data.encode())
        write_atomically(self._part / SHEET_FILE, png_bytes(self._sheet.draw(), {"Comment": NOTICE}))
        try:
            if self.folder.exists():
                self.folder.rmdir()
            os.rename(self._part, self.folder)
        except OSError as error:
            raise OutputError(f"output {self.folder} cannot be made: {error.strerror or error}") from error


def plain(value: Any) -> Any:
    """The value as JSON takes it: dataclasses as objects, NaN as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value

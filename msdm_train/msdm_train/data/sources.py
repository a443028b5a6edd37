"""The layouts of annotated data that can be read, by name."""

from __future__ import annotations

from pathlib import Path

from msdm_engine.errors import InputError, RequestError
from msdm_train.data.bbbc038 import Bbbc038Reader
from msdm_train.data.reader import Reader
from msdm_train.data.tiles import TileReader


def open_source(root: Path, layout: str, splits: Path | None, *, name: str, licence: str, source: str) -> Reader:
    """The reader of a folder: layout ``tiles`` or ``bbbc038``."""
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", hint="name the folder that holds the annotated tiles")
    if layout == "tiles":
        if splits is not None:
            raise RequestError("--splits goes with the layout bbbc038", note="tiles have their split in metadata.csv")
        return TileReader(root, name=name, licence=licence, source=source)
    return Bbbc038Reader(root, splits, name=name, licence=licence, source=source)

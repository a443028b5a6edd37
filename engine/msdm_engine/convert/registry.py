"""The formats by name."""

from __future__ import annotations

from collections.abc import Mapping

from msdm_engine.convert.coco import COCO
from msdm_engine.convert.conic import CONIC
from msdm_engine.convert.format import Format
from msdm_engine.convert.hovernet import HOVERNET
from msdm_engine.convert.imagefolder import IMAGEFOLDER
from msdm_engine.convert.pannuke import PANNUKE
from msdm_engine.convert.qupath import QUPATH
from msdm_engine.convert.webdataset import WEBDATASET
from msdm_engine.errors import RequestError, nearest

FORMATS: Mapping[str, Format] = {
    "coco": COCO,
    "qupath": QUPATH,
    "hovernet": HOVERNET,
    "pannuke": PANNUKE,
    "conic": CONIC,
    "webdataset": WEBDATASET,
    "imagefolder": IMAGEFOLDER,
}


def format_named(name: str) -> Format:
    """The format of that name; a RequestError that names the nearest where there is none."""
    if name not in FORMATS:
        raise RequestError(f"unknown format '{name}'", note=nearest(name, FORMATS), hint="name one of them with --to")
    return FORMATS[name]

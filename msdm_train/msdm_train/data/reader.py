"""The one contract that every source of annotated pictures fulfils."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Region:
    """A rectangle of a field with its own metadata; pixels [y0:y1, x0:x1]."""

    y0: int
    x0: int
    y1: int
    x1: int
    tags: dict[str, str]
    description: str = ""
    assay: str = ""
    indication: str = ""


@dataclass(frozen=True)
class Field:
    """One field of view, the unit that a split never cuts.

    Args:
        id: name of the field.
        split: train, val or test.
        image: [H, W, 3] uint8 RGB.
        instances: [H, W] uint16 instance map, 0 is background.
        regions: rectangles that hold data; pixels outside all of them are holes and are never cropped.
        classes: class (from 0) of each label of ``instances``, where the source has nucleus classes.
    """

    id: str
    split: str
    image: np.ndarray
    instances: np.ndarray
    regions: tuple[Region, ...]
    classes: dict[int, int] | None = None


class Reader(Protocol):
    """A source of fields; its licence and origin travel with everything made from it."""

    name: str
    licence: str
    source: str

    def fields(self) -> Iterator[Field]:
        """Yields each field once, in a fixed order."""
        ...

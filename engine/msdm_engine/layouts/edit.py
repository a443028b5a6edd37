"""Edits of instance maps: grow, shrink, elongate, add, remove and swap nuclei.

After every edit no two nuclei overlap, labels run from 1 without gaps, and nuclei keep the order of their labels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import InputError, RequestError
from msdm_engine.layouts.edit_numbers import added, removed, swapped
from msdm_engine.layouts.edit_shapes import elongated, grown, shrunk
from msdm_engine.layouts.outlines import OutlineBank, default_bank
from msdm_engine.layouts.registry import stream
from msdm_engine.layouts.request import MAX_NUCLEI

#: ``purpose`` of the random numbers of edits.
EDIT_STREAM = (1 << 32) + 128

#: Inclusive ranges of the numbers that edits take; those in EXCLUSIVE begin above their lower end.
RANGES = {"px": (0, 64), "factor": (1, 4), "count": (1, MAX_NUCLEI), "share": (0, 1)}
EXCLUSIVE = ("px", "factor", "share")


class _Checked:
    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            if field.name in RANGES:
                _check(type(self).__name__.lower(), field.name, getattr(self, field.name))


def _check(edit: str, name: str, value: object) -> None:
    low, high = RANGES[name]
    kinds = (int,) if name == "count" else (int, float)
    legal = not isinstance(value, bool) and isinstance(value, kinds) and low <= value <= high
    if not legal or (name in EXCLUSIVE and value == low):
        after = "above " if name in EXCLUSIVE else ""
        raise RequestError(f"{edit}: {name} is {value!r}", note=f"legal: {after}{low} to {high}")


@dataclass(frozen=True)
class Grow(_Checked):
    """Every nucleus takes the background within ``px`` pixels of it that is nearer to it than to any other.

    Growth stops where neighbours meet. ``px`` is a Euclidean distance, above 0 and up to 64.
    """

    px: float


@dataclass(frozen=True)
class Shrink(_Checked):
    """Every nucleus loses the pixels within ``px`` pixels of its outside.

    The map's border is no outside: what it cuts goes on beyond. Of a nucleus that falls apart the largest piece stays.

    Args:
        px: Euclidean distance, above 0 and up to 64.
        vanish: nuclei of which nothing is left go; otherwise their innermost pixel stays.
    """

    px: float
    vanish: bool = False


@dataclass(frozen=True)
class Elongate(_Checked):
    """Every nucleus is stretched along its own long axis and narrowed across it, by the root of ``factor`` each.

    Its aspect ratio is multiplied by ``factor`` (above 1, up to 4) and its area stays, up to what neighbours take:
    where two nuclei meet, a pixel stays with its owner, else it goes to the one that it lies deeper in.
    """

    factor: float


@dataclass(frozen=True)
class Add(_Checked):
    """Adds ``count`` nuclei in the gaps, outlines from the bank with areas and aspect ratios of the map's own."""

    count: int


@dataclass(frozen=True)
class Remove(_Checked):
    """Removes this share of the nuclei (above 0, up to 1), rounded to whole ones, chosen at random."""

    share: float


@dataclass(frozen=True)
class Swap(_Checked):
    """Replaces this share of the whole nuclei by outlines of the bank: same place, area, aspect ratio, direction."""

    share: float


Edit = Grow | Shrink | Elongate | Add | Remove | Swap


def edit_instances(
    labels: NDArray[np.integer], edit: Edit, *, seed: int = 0, index: int = 0, outlines: OutlineBank | None = None
) -> NDArray[np.uint16]:
    """Edits an instance map. A function of its arguments alone.

    Args:
        labels: [H, W] of an integer type, 0 is background; gaps in the numbering are legal.
        seed, index: the random stream of add, remove and swap; map ``index`` of a set.
        outlines: for add and swap; None takes the bank that ships with the engine.

    Returns:
        [H, W] uint16, labels 1..n without gaps.

    Raises:
        InputError: not an instance map, more than 65,535 nuclei, or without nuclei to take areas from (add).
        RequestError: fewer nuclei than asked for found room (add, swap).
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or not labels.size or labels.min() < 0:
        raise InputError(
            f"an array of shape {labels.shape} and type {labels.dtype} is no instance map",
            note="[H, W] of an integer type, 0 for background, nuclei from 1",
        )
    start = _consecutive(labels)
    bank = default_bank() if outlines is None else outlines
    return _consecutive(_edited(start, edit, stream(seed, index, EDIT_STREAM), bank))


def _edited(labels: NDArray[np.uint16], edit: Edit, rng: np.random.Generator, bank: OutlineBank) -> NDArray[np.uint16]:
    match edit:
        case Grow():
            return grown(labels, edit.px)
        case Shrink():
            return shrunk(labels, edit.px, vanish=edit.vanish)
        case Elongate():
            return elongated(labels, edit.factor)
        case Add():
            return added(labels, edit.count, rng, bank)
        case Remove():
            return removed(labels, edit.share, rng)
        case Swap():
            return swapped(labels, edit.share, rng, bank)


def _consecutive(labels: NDArray[np.integer]) -> NDArray[np.uint16]:
    values, numbers = np.unique(labels, return_inverse=True)
    offset = 0 if values[0] == 0 else 1
    if len(values) - 1 + offset > MAX_NUCLEI:
        raise InputError(f"the map holds more than {MAX_NUCLEI} nuclei", hint="cut it into tiles")
    return (numbers.reshape(labels.shape) + offset).astype(np.uint16)

"""Folds over fields of view, and the fields that a share of the labels leaves."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from msdm_engine.errors import InputError, RequestError
from msdm_train.data.pack import FieldInfo, Pack
from msdm_train.data.reader import Region
from msdm_train.segmentation.folds import folds

COLUMNAR = "columnar"

#: Splits whose fields are dealt into folds. The split test belongs to the bundle's final evaluation.
USED_SPLITS = ("train", "val")


@dataclass(frozen=True)
class Cell:
    """What the segmenters of one fold and label fraction may see, and what they are scored on.

    Args:
        fold: from 0.
        fraction: share of the training fields of the fold, in (0, 1].
        train: fields whose pictures and labels may be read.
        held_out: fields that are scored; disjoint from ``train``.
    """

    fold: int
    fraction: float
    train: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def name(self) -> str:
        """As files are named: ``f0-025`` is fold 0 with 25 % of its training fields."""
        return f"f{self.fold}-{round(100 * self.fraction):03d}"


def is_columnar(region: Region) -> bool:
    """Whether the nuclei of a region count as columnar: by its tag ``architecture``."""
    return region.tags.get("architecture") == COLUMNAR


def is_columnar_field(field: FieldInfo) -> bool:
    """Whether a field has a columnar region."""
    return any(is_columnar(region) for region in field.regions)


def share_of_fields(fields: Sequence[FieldInfo], fraction: float, salt: str) -> tuple[str, ...]:
    """A share of the fields, rounded to whole ones: of the columnar ones rounded down, the others make up the rest.

    At least one of each is kept. Which ones is decided by the SHA-256 of ``salt/field``: a fixed order that knows
    nothing of the pictures, but that columnar fields of a single columnar region come last: seldom are there enough
    whole nuclei in one to fit a layout to. A smaller share is a subset of a larger one.

    Raises:
        RequestError: the share is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise RequestError(f"label fraction {fraction}", note="above 0, up to 1")
    order = sorted(fields, key=lambda field: hashlib.sha256(f"{salt}/{field.id}".encode()).hexdigest())
    columnar = [field.id for field in sorted(order, key=_is_thin) if is_columnar_field(field)]
    others = [field.id for field in order if not is_columnar_field(field)]
    n_columnar = max(1, math.floor(fraction * len(columnar)))
    kept = {*columnar[:n_columnar], *others[: max(1, round(fraction * len(fields)) - n_columnar)]}
    return tuple(field.id for field in fields if field.id in kept)


def _is_thin(field: FieldInfo) -> bool:
    return sum(map(is_columnar, field.regions)) < 2


def cells_of(pack: Pack, n_folds: int, fractions: Sequence[float]) -> tuple[Cell, ...]:
    """All cells, fold by fold, those with most labels first; the fields of train and val are dealt into folds.

    Raises:
        InputError: a fold without a columnar field, or nothing but columnar fields to train on.
        RequestError: see :func:`~msdm_train.segmentation.folds.folds` and :func:`share_of_fields`.
    """
    fields = [field for split in USED_SPLITS for field in pack.split(split)]
    cells = []
    for fold, held_out in enumerate(folds(fields, n_folds)):
        training = [field for field in fields if field.id not in held_out]
        if len({is_columnar_field(field) for field in training}) < 2:
            raise InputError(f"fold {fold} trains on columnar fields alone, or on none", note=_TAG, hint=_FEWER)
        if not any(is_columnar_field(field) for field in fields if field.id in held_out):
            raise InputError(f"fold {fold} holds out no columnar field", note=_TAG, hint=_FEWER)
        for share in sorted(fractions, reverse=True):
            cells.append(Cell(fold, share, share_of_fields(training, share, f"fold {fold}"), held_out))
    return tuple(cells)


_TAG = "columnar regions have the tag architecture = columnar; both kinds of fields are needed on both sides"
_FEWER = "ask for fewer --folds, or add fields"

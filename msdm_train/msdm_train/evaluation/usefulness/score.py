"""Scores of a segmenter on held-out fields, columnar nuclei and the others apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from msdm_engine.errors import InputError
from msdm_engine.metrics.segmentation import aggregated_jaccard, dice, panoptic_quality
from msdm_train.data.pack import FieldInfo, Pack
from msdm_train.evaluation.usefulness.folds import COLUMNAR, USED_SPLITS, is_columnar

#: Nuclei of regions with the tag columnar, and of all other regions.
NUCLEI = (COLUMNAR, "others")
METRICS = ("dice", "aji", "pq")

Predict = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class FieldScore:
    """Scores of one field's nuclei of one kind.

    Args:
        nuclei: a member of :data:`NUCLEI`.
        annotated, predicted: numbers of nuclei in the scored area.
        dice, aji, pq: in [0, 1], see :mod:`msdm_engine.metrics.segmentation`.
    """

    field: str
    nuclei: str
    annotated: int
    predicted: int
    dice: float
    aji: float
    pq: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def score_fields(pack: Pack, names: Sequence[str], predict: Predict) -> list[FieldScore]:
    """Scores each field once or twice: over its columnar regions and over its others, whichever it has.

    A field is predicted whole. Then all pixels outside the scored regions become background in both maps, so a
    nucleus on the line between two kinds of regions counts with the part that lies in each.

    Raises:
        InputError: a field of another split than train and val.
    """
    by_name = {field.id: field for split in USED_SPLITS for field in pack.split(split)}
    scores = []
    for name in names:
        if name not in by_name:
            raise InputError(f"field {name} is not of the splits {' and '.join(USED_SPLITS)}")
        field = by_name[name]
        image, annotated = pack.window(name, 0, 0, field.height_px, field.width_px)
        predicted = predict([image])[0]
        for nuclei in NUCLEI:
            inside = _area(field, nuclei == COLUMNAR)
            if inside.any():
                scores.append(score(name, nuclei, np.where(inside, annotated, 0), np.where(inside, predicted, 0)))
    return scores


def score(field: str, nuclei: str, annotated: np.ndarray, predicted: np.ndarray) -> FieldScore:
    """Scores of two [H, W] instance maps."""
    panoptic = panoptic_quality(annotated, predicted)
    return FieldScore(
        field,
        nuclei,
        panoptic.true_positives + panoptic.false_negatives,
        panoptic.true_positives + panoptic.false_positives,
        dice(annotated, predicted).value,
        aggregated_jaccard(annotated, predicted).value,
        panoptic.pq,
    )


def _area(field: FieldInfo, columnar: bool) -> np.ndarray:
    """[H, W] bool: pixels of the regions that are columnar, or that are not."""
    inside = np.zeros((field.height_px, field.width_px), bool)
    for region in field.regions:
        inside[region.y0 : region.y1, region.x0 : region.x1] |= is_columnar(region) == columnar
    return inside

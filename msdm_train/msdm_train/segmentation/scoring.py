"""Scores of predicted masks, kept so that they can be pooled over any choice of pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdm_engine.errors import InputError
from msdm_engine.metrics.boundary import boundary_distance
from msdm_engine.metrics.segmentation import aggregated_jaccard, dice, panoptic_quality
from msdm_train.data.pack import Pack
from msdm_train.evaluation.context import Segment

#: Names of the scores; of the last two, in pixels, smaller is better.
SCORES = ("dice", "aji", "pq", "boundary_mean_px", "boundary_p95_px")
#: The 95th percentile of a pool is not a ratio of sums.
POOLED = SCORES[:4]


@dataclass(frozen=True, eq=False)
class MaskScores:
    """Scores of n pictures.

    Args:
        picture: [n, 5] float64, :data:`SCORES` of each picture.
        sums: [n, 4, 2] float64, numerator and denominator of each of :data:`POOLED`, such that a pool's score is the
            ratio of its sums: pixels for Dice, AJI and the distance, nuclei for PQ.
        empty: [n] bool, one of the two masks has no boundary and the other has one: its distances are the diagonal
            of the picture (see :mod:`msdm_engine.metrics.boundary`) and are left out of ``sums``.
    """

    picture: np.ndarray
    sums: np.ndarray
    empty: np.ndarray

    def mean(self, score: str, chosen: np.ndarray | None = None) -> float:
        """Mean over pictures, all or those at the given indices; nan for none."""
        values = self.picture[slice(None) if chosen is None else chosen, SCORES.index(score)]
        return float(values.mean()) if values.size else float("nan")

    def pooled(self, score: str, chosen: np.ndarray | None = None) -> float:
        """Score of all pixels or nuclei together; nan where no picture has any."""
        numerator, denominator = self.sums[slice(None) if chosen is None else chosen, POOLED.index(score)].sum(0)
        return float(numerator / denominator) if denominator else float("nan")


def score_masks(true: Sequence[np.ndarray], predicted: Sequence[np.ndarray]) -> MaskScores:
    """Scores predictions against references, [H, W] instance maps of equal size in each pair."""
    rows = [_score(t, p) for t, p in zip(true, predicted, strict=True)]
    n = len(rows)
    return MaskScores(
        np.array([row[0] for row in rows], np.float64).reshape(n, len(SCORES)),
        np.array([row[1] for row in rows], np.float64).reshape(n, len(POOLED), 2),
        np.array([row[2] for row in rows], bool),
    )


def _score(true: np.ndarray, predicted: np.ndarray) -> tuple[list[float], list[tuple[float, float]], bool]:
    overlap, jaccard = dice(true, predicted), aggregated_jaccard(true, predicted)
    quality, boundary = panoptic_quality(true, predicted), boundary_distance(true, predicted)
    foreground = int(np.count_nonzero(true) + np.count_nonzero(predicted))
    nuclei = quality.true_positives + (quality.false_positives + quality.false_negatives) / 2
    undefined = (true.any() != predicted.any()) or (boundary.boundary_px == 0 and boundary.mean_px > 0)
    weight = 0 if undefined else boundary.boundary_px
    sums = [
        (overlap.value * foreground, foreground),
        (jaccard.intersection_px, jaccard.union_px),
        (quality.sq * quality.true_positives, nuclei),
        (boundary.mean_px * weight, weight),
    ]
    picture = [overlap.value, jaccard.value, quality.pq, boundary.mean_px, boundary.p95_px]
    return picture, sums, bool(undefined)


def score_fields(segment: Segment, pack: Pack, names: Sequence[str]) -> dict[str, Any]:
    """Scores a segmenter on fields of a pack, each region as one picture.

    Returns:
        plain JSON: ``segmenter`` (its identity), ``pictures`` (their number), ``mean`` over pictures, ``pooled``, and
        ``by_field`` the means over the pictures of each field.

    Raises:
        InputError: no field is named, or one that the segmenter was trained on, or that the pack lacks.
    """
    known = {field.id: field for field in pack.info.fields}
    learnt = set(_learnt(json.loads(segment.identity.get("source", "{}"))))
    for name in names:
        if name not in known or name in learnt:
            what = "is not in the data" if name not in known else "was learnt from: its score would mean nothing"
            raise InputError(f"field {name} {what}", hint="name held-out fields, by --split or --fields-fold")
    if not names:
        raise InputError("no field is to be scored", hint="choose another --split or --fields-fold")
    places = [(name, region) for name in names for region in known[name].regions]
    pairs = [pack.window(name, r.y0, r.x0, r.y1, r.x1) for name, r in places]
    scores = score_masks([mask for _, mask in pairs], segment([image for image, _ in pairs]))
    of_field = {name: np.array([at for at, place in enumerate(places) if place[0] == name]) for name in names}
    return {
        "segmenter": segment.identity,
        "pictures": len(pairs),
        "mean": {score: scores.mean(score) for score in SCORES},
        "pooled": {score: scores.pooled(score) for score in POOLED},
        "by_field": {name: {score: scores.mean(score, at) for score in SCORES} for name, at in of_field.items()},
    }


def _learnt(source: dict[str, Any]) -> list[str]:
    """Fields of a pack in the identity of a source."""
    parts = [name for part in source.get("mixture", []) for name in _learnt(part)]
    return [*source.get("fields", []), *parts]

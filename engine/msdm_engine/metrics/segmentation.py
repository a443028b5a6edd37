"""How well a predicted instance map agrees with a reference: Dice, aggregated Jaccard index, panoptic quality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import RequestError
from msdm_engine.metrics.overlap import check_pair, overlap_of_instances


@dataclass(frozen=True)
class Dice:
    """Agreement of foreground, blind to instances. ``value`` in [0, 1]."""

    value: float
    criterion: str = "2 |T & P| / (|T| + |P|) of foreground pixels"


@dataclass(frozen=True)
class AggregatedJaccard:
    """Pixels shared by matched nuclei over all pixels claimed. ``value`` in [0, 1].

    Attributes:
        intersection_px: pixels shared by each reference nucleus and its best prediction, summed.
        union_px: pixels of each such pair, of unmatched reference nuclei and of unused predictions, summed.
    """

    value: float
    intersection_px: int
    union_px: int
    criterion: str = "AJI (Kumar et al. 2017), each reference nucleus with the prediction of largest IoU"


@dataclass(frozen=True)
class PanopticQuality:
    """Panoptic quality, PQ = DQ x SQ; all three in [0, 1].

    Attributes:
        pq: panoptic quality.
        dq: detection quality, the F1 score of matched nuclei.
        sq: segmentation quality, mean IoU of matched nuclei.
        true_positives, false_positives, false_negatives: counts of nuclei.
        iou_threshold: nuclei match above this intersection over union.
    """

    pq: float
    dq: float
    sq: float
    true_positives: int
    false_positives: int
    false_negatives: int
    iou_threshold: float

    @property
    def criterion(self) -> str:
        """What is measured, with its source and threshold."""
        return f"PQ (Kirillov et al. 2019), nuclei match at IoU > {self.iou_threshold:g}"


def dice(true: NDArray[np.integer | np.bool_], predicted: NDArray[np.integer | np.bool_]) -> Dice:
    """Dice coefficient of the foregrounds of two masks (Dice 1945). Two empty masks score 1.

    Args:
        true: [H, W] integer or bool; every value but 0 is foreground.
        predicted: [H, W] likewise.

    Raises:
        InputError: the masks differ in shape, or one is not of an integer type.
    """
    check_pair(true, predicted)
    total = np.count_nonzero(true) + np.count_nonzero(predicted)
    if total == 0:
        return Dice(1.0)
    return Dice(2 * int(np.count_nonzero((true != 0) & (predicted != 0))) / total)


def aggregated_jaccard(true: NDArray[np.integer], predicted: NDArray[np.integer]) -> AggregatedJaccard:
    """Aggregated Jaccard index: Kumar et al., *A Dataset and a Technique for Generalized Nuclear Segmentation for
    Computational Pathology*, IEEE Transactions on Medical Imaging 36 (2017), algorithm 1.

    As there, one prediction may serve several reference nuclei, and every prediction that serves none is added to
    the union. Of predictions with equal IoU the one with the smallest label is taken. Two empty maps score 1; if
    only one is empty, 0.

    Args:
        true: [H, W] of any integer type, 0 background; the reference. AJI is not symmetric.
        predicted: [H, W] likewise.

    Raises:
        InputError: the maps differ in shape, or one is not of an integer type.
    """
    table = overlap_of_instances(true, predicted)
    # Ordered by nucleus, best IoU first, smallest label first: the first row of each nucleus is its match.
    order = np.lexsort((table.predicted_index, -table.iou, table.true_index))
    matched, first = np.unique(table.true_index[order], return_index=True)
    best = order[first]
    missed = np.ones(table.true_area.size, bool)
    missed[matched] = False
    unused = np.ones(table.predicted_area.size, bool)
    unused[table.predicted_index[best]] = False
    intersection = int(table.intersection[best].sum())
    union = int(table.union[best].sum() + table.true_area[missed].sum() + table.predicted_area[unused].sum())
    return AggregatedJaccard(intersection / union if union else 1.0, intersection, union)


def panoptic_quality(
    true: NDArray[np.integer], predicted: NDArray[np.integer], *, iou_threshold: float = 0.5
) -> PanopticQuality:
    """Panoptic quality of one class: Kirillov et al., *Panoptic Segmentation*, CVPR 2019, equation 1.

    Above an IoU of 0.5 a nucleus overlaps with one other at most, so that the matching is unique. Two empty maps
    score 1 in all three; without a match all three are 0.

    Args:
        true: [H, W] of any integer type, 0 background; the reference.
        predicted: [H, W] likewise.
        iou_threshold: nuclei match if their intersection over union is larger; in [0.5, 1).

    Raises:
        InputError: the maps differ in shape, or one is not of an integer type.
        RequestError: the threshold is outside [0.5, 1).
    """
    if not 0.5 <= iou_threshold < 1:
        raise RequestError(
            f"iou_threshold is {iou_threshold}",
            note="legal: from 0.5 to below 1",
            hint="below 0.5 a nucleus could match several others; use 0.5, the threshold of the paper",
        )
    table = overlap_of_instances(true, predicted)
    matched_iou = table.iou[table.iou > iou_threshold]
    found = matched_iou.size
    false_positives, false_negatives = table.predicted_area.size - found, table.true_area.size - found
    if found + false_positives + false_negatives == 0:
        dq = sq = 1.0
    else:
        dq = found / (found + 0.5 * false_positives + 0.5 * false_negatives)
        sq = float(matched_iou.mean()) if found else 0.0
    return PanopticQuality(dq * sq, dq, sq, found, false_positives, false_negatives, iou_threshold)

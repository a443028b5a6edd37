from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from msdm_engine.errors import InputError, RequestError
from msdm_engine.metrics.segmentation import aggregated_jaccard, dice, panoptic_quality

#: Sums of a few dozen float64 ratios in another order.
EXACT = 1e-12


def square(*corners: tuple[int, int], side: int = 10, size: int = 60) -> NDArray[np.int32]:
    """Squares with their upper left corner at (y, x), numbered from 1."""
    instances = np.zeros((size, size), np.int32)
    for label, (y, x) in enumerate(corners, start=1):
        instances[y : y + side, x : x + side] = label
    return instances


def slow_aji_and_pq(true: NDArray[np.integer], predicted: NDArray[np.integer]) -> tuple[float, float]:
    """Both papers' formulas, one pair of masks at a time."""
    trues = [true == label for label in np.unique(true) if label]
    guesses = [predicted == label for label in np.unique(predicted) if label]
    intersection, union, used, matched = 0, 0, set(), []
    for mask in trues:
        shared = [int((mask & guess).sum()) for guess in guesses]
        joined = [int((mask | guess).sum()) for guess in guesses]
        ious = [a / b for a, b in zip(shared, joined, strict=True)]
        matched += [iou for iou in ious if iou > 0.5]
        if not any(ious):
            union += int(mask.sum())
            continue
        best = ious.index(max(ious))
        used.add(best)
        intersection, union = intersection + shared[best], union + joined[best]
    union += sum(int(guess.sum()) for at, guess in enumerate(guesses) if at not in used)
    false = len(trues) - len(matched) + len(guesses) - len(matched)
    counted = len(matched) + false / 2
    return (intersection / union if union else 1.0), (sum(matched) / counted if counted else 1.0)


@pytest.mark.parametrize("shift", range(0, 11))
def test_shifted_square(shift: int) -> None:
    true, predicted = square((20, 20)), square((20, 20 + shift))
    overlap = 10 * (10 - shift)  # of two squares of 100 pixels
    iou = overlap / (200 - overlap)
    assert dice(true, predicted).value == pytest.approx(overlap / 100, abs=EXACT)
    assert aggregated_jaccard(true, predicted).value == pytest.approx(iou, abs=EXACT)
    quality = panoptic_quality(true, predicted)
    # At a shift of 3 the IoU is 70 / 130 = 0.54, at 4 it is 60 / 140 = 0.43: no match any more.
    found = shift <= 3
    assert (quality.true_positives, quality.false_positives, quality.false_negatives) == (found, not found, not found)
    assert quality.sq == pytest.approx(iou if found else 0, abs=EXACT)
    assert quality.dq == found and quality.pq == pytest.approx(quality.sq, abs=EXACT)


def test_half_overlap_is_no_match() -> None:
    true, predicted = np.array([[1, 1, 1, 0]]), np.array([[0, 1, 1, 1]])
    assert panoptic_quality(true, predicted).true_positives == 0  # IoU 2 / 4, and the criterion is > 0.5


def test_two_nuclei_predicted_as_one() -> None:
    true = square((20, 10), (20, 20))
    predicted = np.minimum(true, 1)
    aji = aggregated_jaccard(true, predicted)
    # Each of the two finds the merged nucleus: 100 shared, 200 joined, twice. The algorithm may use it twice.
    assert (aji.intersection_px, aji.union_px) == (200, 400)
    quality = panoptic_quality(true, predicted)
    assert (quality.true_positives, quality.false_positives, quality.false_negatives) == (0, 1, 2)
    assert dice(true, predicted).value == 1


def test_nucleus_predicted_in_two_halves() -> None:
    true = square((20, 20))
    predicted = true.copy()
    predicted[20:30, 26:30] = 2
    aji = aggregated_jaccard(true, predicted)
    assert (aji.intersection_px, aji.union_px) == (60, 100 + 40)  # the smaller part is unused: added once more
    quality = panoptic_quality(true, predicted)
    assert (quality.true_positives, quality.false_positives, quality.false_negatives) == (1, 1, 0)
    assert quality.sq == pytest.approx(0.6, abs=EXACT) and quality.dq == pytest.approx(1 / 1.5, abs=EXACT)


def test_missed_and_invented_nuclei() -> None:
    true, predicted = square((0, 0), (20, 20)), square((20, 20), (40, 40))
    aji = aggregated_jaccard(true, predicted)
    assert (aji.intersection_px, aji.union_px) == (100, 300)
    quality = panoptic_quality(true, predicted)
    assert (quality.pq, quality.dq, quality.sq) == (0.5, 0.5, 1.0)


def test_numbering_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 5, (20, 20)), rng.integers(0, 5, (20, 20))
    names = np.array([0, 70, 3, 9000, 12])
    assert aggregated_jaccard(true, predicted).value == aggregated_jaccard(names[true], predicted).value
    assert panoptic_quality(true, predicted).pq == panoptic_quality(true, names[predicted].astype(np.uint16)).pq


@pytest.mark.parametrize("seed", range(60))
def test_matches_the_slow_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Blocks, most of them kept: every kind of match, split, merge, miss and invention occurs.
    true = np.kron(rng.integers(0, 6, (5, 5)), np.ones((3, 4), int))
    predicted = np.where(rng.random(true.shape) < rng.random(), true, rng.integers(0, 7, true.shape))
    aji, pq = slow_aji_and_pq(true, predicted)
    assert aggregated_jaccard(true, predicted).value == pytest.approx(aji, abs=EXACT)
    assert panoptic_quality(true, predicted).pq == pytest.approx(pq, abs=EXACT)


def test_two_empty_masks_agree() -> None:
    empty = np.zeros((4, 4), np.int32)
    quality = panoptic_quality(empty, empty)
    assert dice(empty, empty).value == aggregated_jaccard(empty, empty).value == 1
    assert quality.pq == quality.dq == quality.sq == 1


@pytest.mark.parametrize("swap", [False, True])
def test_an_empty_mask_does_not_agree_with_a_filled_one(swap: bool) -> None:
    pair = [square((0, 0)), np.zeros((60, 60), np.int32)]
    true, predicted = pair[::-1] if swap else pair
    quality = panoptic_quality(true, predicted)
    assert dice(true, predicted).value == aggregated_jaccard(true, predicted).value == 0
    assert quality.pq == quality.dq == quality.sq == 0


def test_dice_takes_binary_masks() -> None:
    assert dice(square((0, 0)) > 0, square((0, 5)) > 0).value == 0.5


def test_results_name_their_criterion_and_are_frozen() -> None:
    one = square((0, 0))
    assert "Kumar" in aggregated_jaccard(one, one).criterion and "foreground" in dice(one, one).criterion
    quality = panoptic_quality(one, one, iou_threshold=0.75)
    assert quality.criterion == "PQ (Kirillov et al. 2019), nuclei match at IoU > 0.75"
    with pytest.raises(dataclasses.FrozenInstanceError):
        quality.pq = 0.0  # type: ignore[misc]


@pytest.mark.parametrize("threshold", [0.49, 1.0])
def test_refuses_a_threshold_without_unique_matches(threshold: float) -> None:
    one = square((0, 0))
    with pytest.raises(RequestError, match=f"iou_threshold is {threshold}"):
        panoptic_quality(one, one, iou_threshold=threshold)


def test_refuses_masks_of_different_shape() -> None:
    for metric in (dice, aggregated_jaccard, panoptic_quality):
        with pytest.raises(InputError, match=r"\[4, 4\] and \[4, 5\]"):
            metric(np.zeros((4, 4), int), np.zeros((4, 5), int))

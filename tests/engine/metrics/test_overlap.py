from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from msdm_engine.errors import InputError
from msdm_engine.metrics.overlap import overlap_of_instances


def test_counts_shared_pixels_of_each_pair() -> None:
    true = np.array([[0, 5, 5, 5], [0, 9, 9, 0]])
    predicted = np.array([[2, 2, 2, 7], [0, 0, 7, 7]])
    overlap = overlap_of_instances(true, predicted)
    assert overlap.true_area.tolist() == [3, 2]
    assert overlap.predicted_area.tolist() == [3, 3]
    # Nucleus 5 (number 0) shares two pixels with 2 (number 0) and one with 7; nucleus 9 shares one with 7.
    pairs = zip(overlap.true_index, overlap.predicted_index, overlap.intersection, strict=True)
    assert [tuple(map(int, pair)) for pair in pairs] == [(0, 0, 2), (0, 1, 1), (1, 1, 1)]
    assert overlap.union.tolist() == [4, 5, 4]
    np.testing.assert_array_equal(overlap.iou, [2 / 4, 1 / 5, 1 / 4])


@pytest.mark.parametrize(
    ("true", "predicted", "areas"),
    [
        (np.zeros((2, 3), int), np.zeros((2, 3), int), ([], [])),
        (np.ones((2, 3), int), np.zeros((2, 3), int), ([6], [])),  # no background pixel at all in the reference
        (np.zeros((2, 3), int), np.full((2, 3), 4, np.uint16), ([], [6])),
        (np.zeros((0, 3), int), np.zeros((0, 3), int), ([], [])),
    ],
)
def test_maps_without_common_nuclei_have_no_pairs(
    true: NDArray[np.integer], predicted: NDArray[np.integer], areas: tuple[list[int], list[int]]
) -> None:
    overlap = overlap_of_instances(true, predicted)
    assert (overlap.true_area.tolist(), overlap.predicted_area.tolist()) == areas
    assert overlap.intersection.size == overlap.iou.size == 0


@pytest.mark.parametrize(
    ("true", "predicted", "what"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"\[2, 3\] and \[3, 2\]"),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3), int), "reference mask has dtype float32"),
        (np.zeros((2, 3), int), np.zeros((2, 3), np.float64), "predicted mask has dtype float64"),
    ],
)
def test_refuses_masks_that_cannot_be_compared(
    true: NDArray[np.integer], predicted: NDArray[np.integer], what: str
) -> None:
    with pytest.raises(InputError, match=what):
        overlap_of_instances(true, predicted)

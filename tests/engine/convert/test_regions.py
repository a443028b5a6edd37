from __future__ import annotations

import numpy as np

from msdm_engine.convert.regions import regions_of


def test_a_rectangle_has_its_own_area_box_and_centre() -> None:
    mask = np.zeros((20, 30), np.uint16)
    mask[4:9, 10:14] = 3
    regions = regions_of(mask)
    assert regions.labels.tolist() == [3]
    assert regions.area_px.tolist() == [5 * 4]
    assert regions.box.tolist() == [[10, 4, 4, 5]]
    # the mean of 10..13 and of 4..8
    assert regions.centroid.tolist() == [[11.5, 6.0]]


def test_a_nucleus_in_two_pieces_is_one_row() -> None:
    mask = np.zeros((10, 10), np.uint16)
    mask[0, 9] = mask[9, 0] = 1
    regions = regions_of(mask)
    assert regions.box.tolist() == [[0, 0, 10, 10]]
    assert regions.centroid.tolist() == [[4.5, 4.5]]
    assert regions.area_px.tolist() == [2]


def test_each_nucleus_of_every_mask_is_measured_as_by_its_own_pixels(masks: list[np.ndarray]) -> None:
    for mask in masks:
        regions = regions_of(mask)
        assert regions.labels.tolist() == [label for label in np.unique(mask) if label]
        for i, label in enumerate(regions.labels):
            ys, xs = np.nonzero(mask == label)
            assert regions.area_px[i] == len(ys)
            x, y, width, height = regions.box[i]
            assert (x, y, x + width - 1, y + height - 1) == (xs.min(), ys.min(), xs.max(), ys.max())
            # sums of whole numbers below 2^53 are exact, so both means are the same quotient
            assert regions.centroid[i].tolist() == [xs.sum() / len(xs), ys.sum() / len(ys)]


def test_no_nucleus_is_no_row() -> None:
    regions = regions_of(np.zeros((16, 16), np.uint16))
    assert len(regions.labels) == 0
    assert regions.box.shape == (0, 4)
    assert regions.centroid.shape == (0, 2)

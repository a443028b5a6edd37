from __future__ import annotations

import cv2
import numpy as np
import pytest

from msdm_train.evaluation.nearest_train import (
    TrainRegion,
    correlation_distance,
    nearest_train,
    symmetric,
    undone,
)

SIDE = 32


def texture(seed: int, height: int = 80, width: int = 100) -> np.ndarray:
    """Smooth coloured noise: blobs of about 4 px."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


REGIONS = [TrainRegion(f"t{i}", texture(i)) for i in range(3)]


def test_the_eight_symmetries_differ_and_are_undone() -> None:
    image = texture(9, SIDE, SIDE)
    all_of_them = [symmetric(image, k) for k in range(8)]
    assert len({a.tobytes() for a in all_of_them}) == 8
    for k, turned in enumerate(all_of_them):
        np.testing.assert_array_equal(undone(turned, k), image)


@pytest.mark.parametrize("symmetry", range(8))
def test_a_copy_is_found_at_any_shift_and_symmetry(symmetry: int) -> None:
    region, y, x = symmetry % 3, (7 * symmetry) % 49, (11 * symmetry + 3) % 69
    crop = REGIONS[region].image[y : y + SIDE, x : x + SIDE]
    (found,) = nearest_train([undone(crop, symmetry)], REGIONS)
    assert (found.region, found.y, found.x, found.symmetry) == (region, y, x, symmetry)
    assert found.distance == pytest.approx(0, abs=1e-5)  # float32 sums of 3,072 pixels


def test_a_copy_at_the_last_pixels_is_found() -> None:
    region = [TrainRegion("t", texture(5, 37, 45))]  # its shrunk picture loses a row and a column
    (found,) = nearest_train([region[0].image[5:, 13:]], region)
    assert (found.y, found.x) == (5, 13) and found.distance == pytest.approx(0, abs=1e-5)


def test_a_copy_in_other_contrast_is_a_copy_and_another_picture_is_none() -> None:
    crop = REGIONS[0].image[10:42, 20:52]
    paler = (crop * 0.5 + 90).astype(np.uint8)
    other = texture(77, SIDE, SIDE)
    near, far = nearest_train([paler, other], REGIONS)
    assert near.distance < 0.01  # rounding to half as many grey levels
    # 64 blobs and three channels: correlations of independent pictures spread by about 1/14; the largest of all
    # shifts stays below eight of these.
    assert far.distance > 0.4
    assert far.distance <= correlation_distance(other, REGIONS[0].image[:SIDE, :SIDE])


def test_flat_pictures_have_no_neighbour() -> None:
    flat = np.full((SIDE, SIDE, 3), 200, np.uint8)
    (found,) = nearest_train([flat], REGIONS)
    assert found.distance == pytest.approx(1)
    assert nearest_train([], REGIONS) == []

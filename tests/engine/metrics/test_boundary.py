from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from msdm_engine.errors import InputError
from msdm_engine.metrics.boundary import BoundaryDistance, boundary_distance

#: Distances are computed by OpenCV in float32, of values up to 100: half a unit in the last place is 4e-6.
FLOAT32 = 1e-5


def square(y: int, x: int, side: int = 10, size: int = 60) -> NDArray[np.int32]:
    instances = np.zeros((size, size), np.int32)
    instances[y : y + side, x : x + side] = 1
    return instances


def disc(radius: float, size: int = 101) -> NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size] - size // 2
    return x**2 + y**2 <= radius**2


def slow(true: NDArray[np.integer], predicted: NDArray[np.integer]) -> NDArray[np.float64]:
    """All distances by the definition, one pixel at a time."""

    def boundary(mask: NDArray[np.integer]) -> list[tuple[int, int]]:
        # Beyond the border, a pixel's neighbour counts as its own label.
        padded = np.pad(mask, 1, mode="edge")
        around = ((1, 2), (2, 1), (1, 0), (0, 1))
        return [
            (y, x)
            for y, x in np.argwhere(mask).tolist()
            if any(padded[y + dy, x + dx] != mask[y, x] for dy, dx in around)
        ]

    a, b = boundary(true), boundary(predicted)
    there = [min(math.dist(p, q) for q in b) for p in a]
    back = [min(math.dist(p, q) for q in a) for p in b]
    return np.array(there + back)


@pytest.mark.parametrize("shift", [0, 1, 3, 5])
def test_shifted_square(shift: int) -> None:
    found = boundary_distance(square(20, 20), square(20, 20 + shift))
    # One way; the other is its mirror image. The 10 pixels of the left side, which stands out, are `shift` away. Of the
    # upper and of the lower edge, those between its corner and the other's are 1 to shift - 1 away, the rest 0. The
    # 10 pixels of the right side lie within the other square: `shift` from its right side, or nearer to its upper or
    # lower edge, from which they are 0, 1, 2, 3, 4, 4, 3, 2, 1, 0 away.
    within = [min(shift, k) for k in (*range(5), *reversed(range(5)))]
    one_way = 10 * shift + 2 * sum(range(1, shift)) + sum(within)
    assert found.boundary_px == 2 * 36
    assert found.mean_px == pytest.approx(one_way / 36, abs=FLOAT32)
    assert found.p95_px == pytest.approx(shift, abs=FLOAT32)


@pytest.mark.parametrize("gap", [1, 4, 10])
def test_concentric_discs(gap: int) -> None:
    found = boundary_distance(disc(20), disc(20 + gap))
    # Between circles the distance is the difference of the radii everywhere; a pixel's centre lies up to one diagonal
    # step (1.42) inside of its circle, on either side.
    assert abs(found.mean_px - gap) < 0.5 and abs(found.p95_px - gap) < math.sqrt(2)


@pytest.mark.parametrize("seed", range(10))
def test_matches_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, predicted = (np.kron(rng.integers(0, 3, (4, 5)), np.ones((3, 3), int)) for _ in range(2))
    expected, found = slow(true, predicted), boundary_distance(true, predicted)
    assert found.boundary_px == expected.size
    assert found.mean_px == pytest.approx(expected.mean(), abs=FLOAT32)
    assert found.p95_px == pytest.approx(np.percentile(expected, 95), abs=FLOAT32)
    swapped = boundary_distance(predicted, true)
    assert swapped.mean_px == pytest.approx(found.mean_px, abs=FLOAT32)


def test_touching_nuclei_have_a_boundary_between_them() -> None:
    apart = square(20, 20)
    apart[20:30, 25:30] = 2
    # Two columns of 8 new boundary pixels (rows 21 to 28, columns 24 and 25); each is as far from the outline of the
    # merged nucleus as from its nearest side: 1, 2, 3, 4, 4, 3, 2, 1. The 72 pixels of the outlines are 0 away.
    found = boundary_distance(apart, square(20, 20))
    assert found.boundary_px == 72 + 16
    assert found.mean_px == pytest.approx(2 * 20 / 88, abs=FLOAT32)
    assert boundary_distance(apart > 0, square(20, 20) > 0).mean_px == 0


def test_a_nucleus_cut_by_the_border_has_no_boundary_there() -> None:
    half = np.zeros((10, 10), np.uint16)
    half[:, :4] = 1
    assert boundary_distance(half, half).boundary_px == 2 * 10


EMPTY, FULL = np.zeros((30, 40), np.int32), np.ones((30, 40), np.int32)


@pytest.mark.parametrize(
    ("true", "predicted", "distance"),
    [(EMPTY, EMPTY, 0), (FULL, FULL, 0), (EMPTY, FULL, 50), (FULL, EMPTY, 50)],  # the diagonal of 30 x 40 is 50
)
def test_masks_without_boundary(true: NDArray[np.int32], predicted: NDArray[np.int32], distance: float) -> None:
    assert boundary_distance(true, predicted) == BoundaryDistance(distance, distance, 0)


def test_an_empty_mask_is_as_far_from_a_filled_one_as_can_be() -> None:
    filled = EMPTY.copy()
    filled[5:9, 5:9] = 3
    for found in (boundary_distance(EMPTY, filled), boundary_distance(filled, EMPTY)):
        assert found == BoundaryDistance(50.0, 50.0, 12)


def test_names_its_criterion_and_is_frozen() -> None:
    found = boundary_distance(EMPTY, EMPTY)
    assert "95th percentile" in found.criterion
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.mean_px = 1.0  # type: ignore[misc]


def test_refuses_masks_of_different_shape() -> None:
    with pytest.raises(InputError, match=r"\[4, 4\] and \[4, 5\]"):
        boundary_distance(np.zeros((4, 4), int), np.zeros((4, 5), int))

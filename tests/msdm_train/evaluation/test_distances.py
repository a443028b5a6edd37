from __future__ import annotations

import numpy as np
import pytest

from msdm_engine.errors import InputError
from msdm_train.evaluation.distances import (
    frechet,
    kernel,
    kernel_distance,
    kernel_distance_of,
    neighbourhood,
    wasserstein2,
)

RNG = np.random.default_rng(0)
CLOUD = RNG.normal(size=(40, 3))


def test_a_translated_cloud_is_as_far_as_the_translation() -> None:
    # The optimal plan of a translation moves each point by it, whatever the cloud; so do means at equal covariance.
    shift = np.array([3.0, 0.0, 4.0])
    moved = RNG.permutation(CLOUD + shift)
    assert wasserstein2(CLOUD, moved).value == pytest.approx(5, rel=1e-9)
    assert frechet(CLOUD, moved).value == pytest.approx(5, rel=1e-4)  # a matrix root of a product: half the digits


def test_a_cloud_is_no_distance_from_itself() -> None:
    again = RNG.permutation(CLOUD)
    assert wasserstein2(CLOUD, again).value == pytest.approx(0, abs=1e-7)  # root of the rounding of O(1) costs
    assert frechet(CLOUD, again).value == pytest.approx(0, abs=1e-3)  # root of the rounding of a matrix root
    found = neighbourhood(CLOUD, again)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    # Each point lies in its own ball and in those of the points that have it among their k nearest: k + 1 on average.
    assert found.density == pytest.approx(6 / 5)


def test_one_dimension_is_sorted() -> None:
    # In one dimension the optimal plan keeps the order: 0 -> 1, 10 -> 12, so root((1 + 4) / 2).
    assert wasserstein2(np.array([[10.0], [0.0]]), np.array([[1.0], [12.0]])).value == pytest.approx(2.5**0.5)
    # Unequal numbers share mass: half of the point at 0 goes to each.
    assert wasserstein2(np.array([[0.0]]), np.array([[1.0], [3.0]])).value == pytest.approx(5**0.5)


def test_frechet_is_that_of_the_gaussians() -> None:
    # Points at +-s on each axis of 2 D: diagonal covariances 2 s^2 / 3. The root of diagonal matrices is elementwise,
    # so the squared distance is the sum of (sd_a - sd_b)^2.
    def cross(x: float, y: float) -> np.ndarray:
        return np.array([[x, 0], [-x, 0], [0, y], [0, -y]], np.float64)

    sd = (2 / 3) ** 0.5
    expected = sd * np.hypot(2 - 1, 5 - 3)
    found = frechet(cross(1, 3), cross(2, 5))
    assert found.value == pytest.approx(expected, rel=1e-6) and not found.warning
    assert "singular" in frechet(CLOUD[:3], CLOUD[3:6]).warning


def test_the_kernel_distance_is_unbiased() -> None:
    # Two halves of one Gaussian, 200 times: the mean lies within 4 standard errors of zero. That of the biased
    # estimate would not: it contains each point's kernel with itself.
    rng = np.random.default_rng(1)
    drawn = np.array([kernel_distance(*rng.normal(size=(2, 12, 3))).value for _ in range(200)])
    assert abs(drawn.mean()) < 4 * drawn.std() / 200**0.5
    assert (drawn < 0).any()
    assert kernel_distance(CLOUD, CLOUD + 1).value > drawn.max()


def test_the_kernel_distance_by_hand_and_with_points_drawn_twice() -> None:
    # D = 1: k(0, y) = 1, k(1, 1) = 8, k(1, 2) = 27. a = {0, 1}, b = {1, 2}: k(0, 1) + k(1, 2) - 2 mean(1, 1, 8, 27).
    a, b = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    assert kernel_distance(a, b).value == pytest.approx(1 + 27 - 2 * 37 / 4)
    parts = kernel(a, a), kernel(b, b), kernel(a, b)
    twice = np.array([0, 0, 1, 1])
    assert kernel_distance_of(*parts, twice, twice) == pytest.approx(1 + 27 - 2 * 37 / 4)
    assert np.isnan(kernel_distance_of(*parts, np.array([0, 0]), twice))


def test_one_mode_repeated_is_precise_and_covers_nothing() -> None:
    found = neighbourhood(CLOUD, np.repeat(CLOUD[:1], 40, 0))
    assert found.precision == 1
    # Balls around copies have no extent: they hold the one real point that was copied.
    assert found.recall == pytest.approx(1 / 40)
    # A real ball holds the mode if it is among the point's five nearest, or is the point: on average six of forty.
    assert found.coverage < 0.5
    assert found.density == pytest.approx(40 * found.coverage / 5)


def test_far_clouds_do_not_meet() -> None:
    found = neighbourhood(CLOUD, CLOUD + 100)
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="0 and 40 pictures"):
        wasserstein2(CLOUD[:0], CLOUD)
    with pytest.raises(InputError, match="2 or more"):
        frechet(CLOUD[:1], CLOUD)
    with pytest.raises(InputError, match="6 or more"):
        neighbourhood(CLOUD[:5], CLOUD)
    with pytest.raises(InputError, match=r"\[40, 3\] and \[40, 2\]"):
        wasserstein2(CLOUD, CLOUD[:, :2])

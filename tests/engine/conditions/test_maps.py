from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from msdm_engine.conditions.maps import class_maps_from_instances, maps_from_instances
from msdm_engine.errors import InputError

#: float32 holds values of at most 1 to 6e-8; a scaled offset takes a handful of float64 operations before that.
EXACT = 1e-6


def slow_maps(instances: NDArray[np.integer]) -> NDArray[np.float64]:
    """The definition, one nucleus at a time."""
    maps = np.zeros((3, *instances.shape))
    maps[0] = -1
    for label in set(instances.ravel().tolist()) - {0}:
        ys, xs = np.nonzero(instances == label)
        maps[0, ys, xs] = 1
        for channel, position in ((1, xs), (2, ys)):
            offset = position - position.mean()
            if offset.min() < 0:
                offset = np.where(offset < 0, offset / -offset.min(), offset)
            if offset.max() > 0:
                offset = np.where(offset > 0, offset / offset.max(), offset)
            maps[channel, ys, xs] = offset
    return maps


def test_rectangle_rises_linearly_from_minus_one_to_one() -> None:
    instances = np.zeros((7, 9), np.int32)
    instances[2:5, 1:6] = 4
    maps = maps_from_instances(instances)
    assert maps.dtype == np.float32 and maps.shape == (3, 7, 9)
    np.testing.assert_allclose(maps[1, 2:5, 1:6], [[-1, -0.5, 0, 0.5, 1]] * 3, atol=EXACT)
    np.testing.assert_allclose(maps[2, 2:5, 1:6], [[-1] * 5, [0] * 5, [1] * 5], atol=EXACT)
    outside = instances == 0
    assert (maps[0][outside] == -1).all() and (maps[0][~outside] == 1).all()
    assert (maps[1:, outside] == 0).all()


def test_even_width_has_its_centre_between_two_pixels() -> None:
    maps = maps_from_instances(np.ones((1, 4), np.int32))
    np.testing.assert_allclose(maps[1, 0], [-1, -1 / 3, 1 / 3, 1], atol=EXACT)


def test_sides_of_an_asymmetric_nucleus_are_scaled_separately() -> None:
    corner = np.array([[1, 1, 1], [1, 0, 0], [1, 0, 0]])
    # x of the five pixels: 0, 1, 2, 0, 0, so the centre of mass is at 0.6 and the sides are 0.6 and 1.4 long.
    maps = maps_from_instances(corner)
    np.testing.assert_allclose(maps[1, 0], [-1, 0.4 / 1.4, 1], atol=EXACT)
    np.testing.assert_allclose(maps[2, :, 0], [-1, 0.4 / 1.4, 1], atol=EXACT)


def test_touching_nuclei_keep_their_own_centres() -> None:
    instances = np.array([[1, 1, 1, 2, 2, 2]])
    np.testing.assert_allclose(maps_from_instances(instances)[1, 0], [-1, 0, 1, -1, 0, 1], atol=EXACT)


def test_one_pixel_nucleus_holds_zero_and_is_foreground() -> None:
    instances = np.zeros((3, 3), np.uint16)
    instances[1, 2] = 9
    maps = maps_from_instances(instances)
    assert maps[:, 1, 2].tolist() == [1, 0, 0]


def test_nucleus_one_pixel_wide_holds_zero_across() -> None:
    instances = np.zeros((5, 3), np.int32)
    instances[:, 1] = 1
    maps = maps_from_instances(instances)
    assert (maps[1] == 0).all()
    np.testing.assert_allclose(maps[2, :, 1], [-1, -0.5, 0, 0.5, 1], atol=EXACT)


def test_nucleus_in_two_pieces_has_one_centre() -> None:
    instances = np.zeros((1, 9), np.int32)
    instances[0, [0, 1, 7, 8]] = 3
    # Centre of mass at 4: the pieces lie at -4, -3, 3 and 4 from it.
    np.testing.assert_allclose(maps_from_instances(instances)[1, 0, [0, 1, 7, 8]], [-1, -0.75, 0.75, 1], atol=EXACT)


def test_nucleus_cut_by_the_border_is_measured_by_its_visible_part() -> None:
    whole = np.zeros((12, 12), np.int32)
    whole[2:11, 3:10] = 1
    visible = whole[:6, :7]
    alone = np.zeros((20, 20), np.int32)
    alone[5:11, 5:12] = visible
    np.testing.assert_array_equal(maps_from_instances(visible), maps_from_instances(alone)[:, 5:11, 5:12])


@pytest.mark.parametrize("step", [1, 3, 100_000])  # 100,000: labels far beyond the number of pixels
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_matches_the_definition_on_random_maps(step: int, dtype: type[np.integer]) -> None:
    if step * 6 > np.iinfo(dtype).max:
        step = np.iinfo(dtype).max // 6
    rng = np.random.default_rng(step)
    for _ in range(10):
        instances = rng.integers(0, 7, rng.integers(1, 13, 2))
        instances[rng.random(instances.shape) < 0.4] = 0
        instances = (instances * step).astype(dtype)
        np.testing.assert_allclose(maps_from_instances(instances), slow_maps(instances), atol=EXACT)


def test_maps_follow_flips_and_transposition() -> None:
    rng = np.random.default_rng(0)
    instances = rng.integers(0, 4, (11, 8))
    maps = maps_from_instances(instances)
    flipped = maps_from_instances(instances[:, ::-1])[:, :, ::-1]
    np.testing.assert_allclose(flipped * np.array([1, -1, 1])[:, None, None], maps, atol=EXACT)
    np.testing.assert_allclose(maps_from_instances(instances.T)[[0, 2, 1]].transpose(0, 2, 1), maps, atol=EXACT)


@pytest.mark.parametrize("shape", [(4, 5), (0, 5), (1, 1)])
def test_map_without_nuclei(shape: tuple[int, int]) -> None:
    maps = maps_from_instances(np.zeros(shape, np.int32))
    assert maps.shape == (3, *shape)
    assert (maps[0] == -1).all() and (maps[1:] == 0).all()


@pytest.mark.parametrize(
    ("instances", "what"),
    [
        (np.zeros((3, 4, 1), np.int32), r"shape \[3, 4, 1\]"),
        (np.zeros((3, 4), np.float32), "dtype float32"),
        (np.zeros((3, 4), bool), "dtype bool"),
        (np.full((3, 4), -2), "label -2"),
    ],
)
def test_refuses_what_is_no_instance_map(instances: NDArray[np.integer], what: str) -> None:
    with pytest.raises(InputError, match=what):
        maps_from_instances(instances)
    with pytest.raises(InputError, match=what):
        class_maps_from_instances(instances, {}, 5)


@pytest.mark.parametrize("classes", [{2: 0, 7: 2}, np.array([-1, -1, 0, -1, -1, -1, -1, 2])])
def test_class_maps_are_one_hot_over_nuclei(classes: dict[int, int] | NDArray[np.integer]) -> None:
    instances = np.array([[0, 2, 2], [7, 7, 0]], np.uint16)
    maps = class_maps_from_instances(instances, classes, 3)
    assert maps.dtype == np.float32
    assert maps.tolist() == [
        [[-1, 1, 1], [-1, -1, -1]],
        [[-1, -1, -1], [-1, -1, -1]],
        [[-1, -1, -1], [1, 1, -1]],
    ]


@pytest.mark.parametrize(
    ("classes", "n_classes", "what"),
    [
        ({2: 0}, 3, "nucleus 7 has no class"),
        (np.zeros(7, np.int64), 3, "nucleus 7 has no class"),
        ({2: 0, 7: 3}, 3, "nucleus 7 has class 3"),
        ({2: -1, 7: 0}, 3, "nucleus 2 has class -1"),
        ({}, 0, "n_classes is 0"),
    ],
)
def test_refuses_a_nucleus_without_a_legal_class(
    classes: dict[int, int] | NDArray[np.integer], n_classes: int, what: str
) -> None:
    with pytest.raises(InputError, match=what):
        class_maps_from_instances(np.array([[0, 2], [7, 7]]), classes, n_classes)

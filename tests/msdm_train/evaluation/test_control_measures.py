from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msdm_train.data.crops import Crop, request_of, windows
from msdm_train.data.pack import Pack
from msdm_train.evaluation import changes
from msdm_train.evaluation.control_measures import (
    MEASURES,
    Shape,
    between_fields,
    colour_errors,
    distance_of,
    mean_lab,
    relative_errors,
    shape_of,
    share_of_way,
)

COUNT, AREA, ASPECT = MEASURES


def square(side_px: int, *corners: tuple[int, int]) -> np.ndarray:
    """Square nuclei on 32 x 32 px."""
    instances = np.zeros((32, 32), np.uint16)
    for label, (y, x) in enumerate(corners, start=1):
        instances[y : y + side_px, x : x + side_px] = label
    return instances


@pytest.fixture
def crops(opened_pack: Pack) -> list[Crop]:
    return windows(opened_pack, "train", 32)  # four of each of two fields


def test_nuclei_at_the_border_count_and_have_no_shape() -> None:
    shape = shape_of(square(4, (10, 10), (0, 20)))
    assert (shape.count, shape.area_px.tolist(), shape.aspect_ratio.tolist()) == (2, [16.0], [1.0])


def test_relative_errors() -> None:
    asked = [shape_of(square(4, (10, 10), (20, 20))), shape_of(square(4)), shape_of(square(4, (10, 10)))]
    came = [shape_of(square(6, (10, 10))), shape_of(square(4, (5, 5))), shape_of(square(4))]
    # Two asked, one came; none asked: no share of it; one asked, none came.
    np.testing.assert_array_equal(relative_errors(asked, came, COUNT), [0.5, np.nan, 1.0])
    np.testing.assert_array_equal(relative_errors(asked, came, AREA), [(36 - 16) / 16, np.nan, np.nan])


def test_the_distance_of_shifted_distributions_is_the_shift() -> None:
    rng = np.random.default_rng(0)
    values = [Shape(1, rng.uniform(50, 90, 7), np.ones(7)) for _ in range(5)]
    moved = [replace(s, area_px=s.area_px + 12.5) for s in values]
    assert distance_of(values, moved, AREA) == pytest.approx(12.5)
    assert distance_of(values, values, AREA) == 0
    assert np.isnan(distance_of(values, [shape_of(square(4))], AREA))
    # Fields that differ by that much: each against the other.
    fields = ["a"] * 5 + ["b"] * 5
    assert between_fields([*values, *moved], fields, AREA) == pytest.approx(12.5)
    assert np.isnan(between_fields(values, ["a"] * 5, AREA))


def test_the_share_of_the_way() -> None:
    origin, target = np.zeros((3, 2)), np.array([[4.0, 0], [4, 0], [0, 0]])
    after = np.array([[1.0, 3], [4, 0], [1, 1]])  # across the way does not count
    np.testing.assert_array_equal(share_of_way(origin, after, origin, target), [0.25, 1.0, np.nan])


def test_colours_are_compared_where_both_have_the_region(crops: list[Crop]) -> None:
    lab = mean_lab(crops)
    assert lab.shape == (8, 2, 3)
    np.testing.assert_array_equal(colour_errors(lab, lab), np.zeros((8, 2)))
    empty = mean_lab([replace(crops[0], instances=np.zeros_like(crops[0].instances))])
    assert np.isnan(empty[0, 0]).all()
    errors = colour_errors(lab[:1], empty)
    assert np.isnan(errors[0, 0])
    assert errors[0, 1] > 0


def test_each_change_alters_its_condition_alone(crops: list[Crop]) -> None:
    crop, request = crops[0], request_of(crops[0], 0, 3)
    for change, altered in (
        (changes.without_colour, {"colour"}),
        (changes.without_text, {"metadata"}),
        (changes.without_morphology, {"instances", "morphology"}),
        (changes.other_seed, {"seed"}),
        (changes.with_colour_of(crops, [7]), {"colour"}),
        (changes.with_text_of(crops, [7]), set()),  # it is the same text
        (changes.with_text_of(crops, [None]), set()),
    ):
        made = change(request, crop)
        before, after = vars(request), vars(made)
        kept = {
            name
            for name in before
            if before[name] is after[name] or (name != "instances" and before[name] == after[name])
        }
        assert set(before) - kept == altered


def test_partners_come_from_another_field_where_there_is_one(crops: list[Crop]) -> None:
    chosen = changes.partners(crops, changes.other_window, seed=0)
    assert chosen == changes.partners(crops, changes.other_window, seed=0)
    for crop, partner in zip(crops, chosen, strict=True):
        assert partner is not None
        assert crops[partner].field != crop.field
    assert changes.partners(crops, changes.other_text, seed=0) == [None] * 8
    (alone,) = changes.partners(crops[:1], changes.other_window, seed=0)
    assert alone is None
    for number, partner in enumerate(changes.partners(crops[:4], changes.other_window, seed=0)):
        assert partner is not None
        assert partner != number

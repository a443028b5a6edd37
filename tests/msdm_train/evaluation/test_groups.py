from __future__ import annotations

import numpy as np
import pytest

from msdm_train.data.crops import Crop
from msdm_train.data.reader import Region
from msdm_train.evaluation.groups import OTHER, Standard, distance_at, distance_of_halves, groups_of
from msdm_train.evaluation.partners import Clouds, Partners
from msdm_train.evaluation.samples import Sample

BLANK = np.zeros((4, 4, 3), np.uint8)


def crop(field: str, stain: str) -> Crop:
    return Crop(field, 0, 0, Region(0, 0, 4, 4, {"stain": stain}), BLANK, BLANK[..., 0])


def made(real: list[Crop], seeds: int = 1) -> list[Sample]:
    pairs = [(i, c, seed) for seed in range(seeds) for i, c in enumerate(real)]
    return [Sample(BLANK, BLANK[..., 0], c.field, c.region.tags["stain"], i, seed) for i, c, seed in pairs]


REAL = [crop("v1", "pink"), crop("v1", "pink"), crop("v2", "blue"), crop("v2", "grey"), crop("v3", "pink")]
TRAIN = [crop("t1", "pink"), crop("t1", "blue"), crop("t2", "pink"), crop("t3", "green"), crop("t4", "blue")]


def test_groups_of_few_fields_are_pooled_with_the_split_s_own_tags() -> None:
    blue, pink, other = groups_of(REAL, made(REAL, 2), TRAIN)
    assert (pink.name, pink.fields, pink.real.tolist(), pink.train.tolist()) == ("pink", 4, [0, 1, 4], [0, 2])
    assert pink.made.tolist() == [0, 1, 4, 5, 6, 9]
    assert (blue.name, blue.fields, blue.n) == ("blue", 3, 1)  # v2, t1 and t4
    # Grey has one field. Green is as rare, but the split has none, so train's green windows are no part of the floor.
    assert (other.name, other.tags, other.fields, other.n) == (OTHER, ("grey",), 1, 0)


def test_distances_at_one_n_are_of_the_clouds() -> None:
    rng = np.random.default_rng(0)
    points = np.arange(6.0)[:, None] * 100
    found = distance_at(points, points + 3, 6, 5, rng)  # all of both: a translation by 3, each time
    assert [found.mean, found.low, found.high] == pytest.approx([3, 3, 3])
    assert distance_at(points, points + 3, 2, 200, rng).mean > 3  # draws of two seldom meet


def test_halves_never_share_a_field() -> None:
    # Fields lie 10 apart without any spread: two of three fields against one give at least 10, a shared field 0.
    fields = ["a", "a", "b", "b", "c", "c"]
    points = np.repeat([[0.0], [10.0], [30.0]], 2, 0)
    found = distance_of_halves(points, fields, 2, 30, np.random.default_rng(0))
    assert found is not None and found.low >= 10 and found.draws == 30
    assert distance_of_halves(points, fields, 3, 30, np.random.default_rng(0)) is None  # a half has two


def test_standard_deviations_of_train_are_the_unit() -> None:
    train = np.random.default_rng(0).normal(5, [1, 7, 0], (500, 3))
    standard = Standard.of(train)
    far = standard(train[:250]) - standard(train[250:])
    assert (far**2).sum(1).mean() == pytest.approx(2, rel=0.15)  # a mean of 250 such, each with a spread of about 2
    np.testing.assert_array_equal(standard(train + [0, 0, 99]), standard(train))  # what never varied says nothing


def test_partners_are_of_the_window_and_of_its_group() -> None:
    groups = groups_of(REAL, made(REAL), TRAIN)[:2]  # blue and pink
    partners = Partners(made(REAL), groups)
    assert partners.real.tolist() == [0, 1, 2, 4]
    real, pairs, train = partners.draw(np.array([0, 0, 2, 4]), np.random.default_rng(0))
    assert real.tolist() == [0, 0, 2, 4] and pairs.tolist() == [0, 0, 2, 4]
    assert train[0] == train[1] and {train[0], train[3]} == {0, 2} and train[2] in (1, 4)
    # Pink has three windows here and two in train: one is left out at random.
    kept = {tuple(partners.draw(partners.real, np.random.default_rng(seed))[0].tolist()) for seed in range(20)}
    assert kept == {(0, 1, 2), (0, 2, 4), (1, 2, 4)}


def test_the_ratio_is_one_where_pairs_are_as_far_as_train() -> None:
    # One group, every cloud a translation of the same line: distances are the translations, whatever is drawn.
    real = [crop(f"v{i}", "pink") for i in range(4)]
    train = [crop(f"t{i}", "pink") for i in range(4)]
    pairs = made(real)
    line = np.arange(4.0)[:, None] * 100
    clouds = Clouds(line, line + 6, line + 3)
    partners = Partners(pairs, groups_of(real, pairs, train))
    assert partners.ratio(clouds, partners.real, 3, 0) == pytest.approx(2)
    assert np.isnan(partners.ratio(clouds, partners.real[:1], 3, 0))


def test_pairs_that_are_the_real_windows_take_their_place() -> None:
    real = [crop(f"v{i // 4}", "pink") for i in range(8)]
    train = [crop(f"t{i}", "pink") for i in range(8)]
    pairs = made(real)
    partners = Partners(pairs, groups_of(real, pairs, train))
    cloud = np.random.default_rng(0).normal(size=(8, 2))
    ours, others = partners.replacement(Clouds(cloud, cloud, cloud + 50), partners.real, 5, 0)
    assert ours == pytest.approx(1)  # what stands in A's place is A itself
    assert others > 10  # 70 away, where the windows lie about 2 apart
    # Halves hold different windows, and a window that was drawn twice twice.
    first, second = partners._halves(np.array([0, 0, 1, 1, 5, 5]), np.random.default_rng(0))
    assert len(first) == len(second) == 2
    assert np.isnan(partners.replacement(Clouds(cloud, cloud, cloud), partners.real[:1], 5, 0)[0])

from __future__ import annotations

import numpy as np
import pytest

from msdm_engine.errors import InputError
from msdm_train.evaluation.two_sample import (
    NEVER_HELD,
    Classifier,
    Sides,
    count_of_folds,
    flaw_of,
    folds_of,
    logistic,
    pixel_classifier,
    planted,
    scores_of,
    told_apart,
)

FIELDS = [str(i // 8) for i in range(48)]  # six fields of eight


def sides(first: np.ndarray, second: np.ndarray) -> Sides:
    folds = folds_of(FIELDS, 3, seed=0)
    return Sides(np.concatenate([first, second]), np.repeat([0, 1], len(first)), np.tile(folds, 2))


def accuracy(given: Sides, classify: Classifier) -> float:
    scores = scores_of(given, classify)
    return float(told_apart(scores[:48], scores[48:])[0].mean())


def textures(seed: int, noise: float = 0.0) -> np.ndarray:
    """[48, 16, 16, 3] uint8 smooth pictures, the colour of each field its own, with noise of that deviation."""
    rng = np.random.default_rng(seed)
    of_field = rng.integers(100, 160, (6, 1, 1, 3)).repeat(8, 0)
    smooth = np.kron(rng.normal(0, 10, (48, 4, 4, 1)), np.ones((1, 4, 4, 1)))
    return np.clip(of_field + smooth + rng.normal(0, 1, (48, 16, 16, 3)) * noise, 0, 255).astype(np.uint8)


def test_folds_hold_whole_fields_and_fill_evenly() -> None:
    folds = folds_of(["a"] * 6 + ["b"] * 3 + ["c"] * 3 + ["d"] * 1, 2, seed=3)
    assert all(len(set(folds[part])) == 1 for part in (slice(6), slice(6, 9), slice(9, 12)))
    assert sorted(np.bincount(folds)) == [6, 7]  # 6 alone, then 3 + 3, then the one to the smaller
    assert count_of_folds(FIELDS, ["a", "b", "c"]) == 3 and count_of_folds(FIELDS) == 5
    with pytest.raises(InputError, match="one field only"):
        count_of_folds(FIELDS, ["a", "a"])


def test_what_was_seen_is_never_judged() -> None:
    given = sides(np.zeros((48, 1)), np.ones((48, 1)))

    def check(items: np.ndarray, labels: np.ndarray, folds: np.ndarray, asked: np.ndarray) -> np.ndarray:
        assert len(set(folds)) == 2 and len(items) + len(asked) == 96
        assert labels.mean() == 0.5
        return asked[:, 0]

    np.testing.assert_array_equal(scores_of(given, check), given.labels)


def test_what_is_never_held_is_always_learnt_from() -> None:
    folds = np.repeat([0, 1, NEVER_HELD], [2, 4, 3])
    given = Sides(np.arange(9.0)[:, None], np.zeros(9, np.int64), folds)

    def check(items: np.ndarray, labels: np.ndarray, folds: np.ndarray, asked: np.ndarray) -> np.ndarray:
        assert items[-3:, 0].tolist() == [6, 7, 8] and len(items) + len(asked) == 9
        return asked[:, 0]

    np.testing.assert_array_equal(scores_of(given, check), [0, 1, 2, 3, 4, 5, np.nan, np.nan, np.nan])


def test_planted_noise_has_its_deviation() -> None:
    noise = planted(np.full((4, 32, 32, 3), 128, np.uint8), seed=0).astype(float) - 128
    # The deviation of 12,288 draws of deviation 6, rounded (+ 1/12 of variance), is off by 0.04; three of them.
    assert noise.std() == pytest.approx((36 + 1 / 12) ** 0.5, abs=0.12)


def test_a_blind_or_an_inverted_classifier_is_no_sign_of_closeness() -> None:
    fields, half, wrong = ["a", "a", "b", "b"], np.array([0, 1, 0.5, 0.5]), np.array([0, 0.5, 0, 0])
    assert flaw_of(half, fields, power=0.9) == ""
    assert "in 60% only" in flaw_of(half, fields, power=0.6)
    assert "wrong on every field" in flaw_of(wrong, fields, power=0.9)


def test_partners_are_named_or_chosen_between() -> None:
    # Both right; both said to be 1, yet in the right order; both wrong; a tie above zero.
    named, chosen = told_apart(np.array([-1.0, 1, 1, 2]), np.array([1.0, 3, -1, 2]))
    assert named.tolist() == [1, 0.5, 0, 0.5] and chosen.tolist() == [1, 1, 0, 0.5]


def test_embeddings_of_one_distribution_are_not_told_apart_and_moved_ones_are() -> None:
    # 96 fair guesses have a standard deviation of 0.05; three of them.
    rng = np.random.default_rng(0)
    same, other = rng.normal(size=(2, 48, 4))
    assert abs(accuracy(sides(same, other), logistic) - 0.5) < 0.15
    # Normal clouds 6 apart are told apart by the middle in 99.87 % (Phi(3)); a fitted line is a little off.
    assert accuracy(sides(same, other + [6, 0, 0, 0]), logistic) > 0.95


def test_a_field_s_own_look_is_not_realism() -> None:
    # Fields are far apart, and both classes have all: a classifier that learnt fields would know nothing of others.
    rng = np.random.default_rng(1)
    of_field = rng.normal(0, 20, (6, 4)).repeat(8, 0)
    found = accuracy(sides(of_field + rng.normal(size=(48, 4)), of_field + rng.normal(size=(48, 4))), logistic)
    assert abs(found - 0.5) < 0.15


def test_noise_gives_a_picture_away_and_nothing_else_does() -> None:
    real = textures(0)
    assert accuracy(sides(real, textures(0, noise=12)), pixel_classifier(steps=20, seed=0)) > 0.9
    # The very same pictures on both sides: whatever is said, one of each two is wrong.
    assert accuracy(sides(real, textures(0)), pixel_classifier(steps=5, seed=0)) == 0.5


def test_the_same_seed_says_the_same() -> None:
    real, made = textures(0), textures(1, noise=3)
    labels, folds = np.repeat([0, 1], 48), np.tile(folds_of(FIELDS, 3, 0), 2)
    items = np.concatenate([real, made])
    one, same = (pixel_classifier(steps=5, seed=7)(items, labels, folds, real[:9]) for _ in range(2))
    np.testing.assert_array_equal(one, same)

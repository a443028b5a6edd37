from __future__ import annotations

import json
import math
from itertools import product

import numpy as np
import pytest

from msdm_engine.errors import InputError
from msdm_train.evaluation.statistics import bootstrap_by_field, bootstrap_by_field_and_seed


def test_an_interval_of_a_constant_is_a_point() -> None:
    found = bootstrap_by_field(["a", "a", "b"], lambda i: 3.0, resamplings=20, seed=0)
    assert (found.value, found.low, found.high, found.n_fields) == (3.0, 3.0, 3.0, 2)


def test_two_fields_give_their_means_and_the_mean_of_both() -> None:
    # Draws are aa, ab, ba, bb: means 0, 1/2, 1/2, 1 with chances 1/4, 1/2, 1/4, so both tails hold more than 2.5 %.
    values, seen = np.array([0.0, 0.0, 1.0, 1.0]), set()

    def mean(indices: np.ndarray) -> float:
        seen.add(float(values[indices].mean()))
        return float(values[indices].mean())

    found = bootstrap_by_field(["a", "a", "b", "b"], mean, resamplings=200, seed=1)
    assert seen == {0.0, 0.5, 1.0}
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_samples_of_a_field_stay_together() -> None:
    fields = ["a", "b", "a", "c", "b", "a"]

    def check(indices: np.ndarray) -> float:
        counts = {field: [int((indices == i).sum()) for i, f in enumerate(fields) if f == field] for field in "abc"}
        assert all(len(set(times)) == 1 for times in counts.values())
        assert sum(times[0] for times in counts.values()) == 3
        return 0.0

    bootstrap_by_field(fields, check, resamplings=50, seed=2)


def test_the_width_is_that_of_fields_not_of_samples() -> None:
    # Mean of F independent fields of variance 1: the interval's half width is 1.96 / sqrt(F), however many copies of
    # each field there are. F = 400: the sample's own standard deviation is off by 1/sqrt(2 F) = 3.5 %, quantiles of
    # 2,000 draws by about 3 %; 15 % holds three such errors.
    values = np.repeat(np.random.default_rng(0).normal(size=400), 10)
    fields = [str(i // 10) for i in range(4000)]
    found = bootstrap_by_field(fields, lambda i: float(values[i].mean()), resamplings=2000, seed=3)
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.96 / 20, rel=0.15)
    assert not found.exploratory


def test_one_field_has_no_interval_and_says_why() -> None:
    found = bootstrap_by_field(["a"] * 5, lambda i: 2.0, resamplings=10, seed=0)
    assert (found.value, found.low, found.high, found.n_fields) == (2.0, None, None, 1)
    assert "one field" in found.reason
    assert found.exploratory


def test_what_is_rarely_defined_has_no_interval() -> None:
    # Defined only where all three fields were drawn: 3!/27 = 22 % of the draws.
    fields = ["a", "b", "c"]
    found = bootstrap_by_field(fields, lambda i: 1.0 if len(set(i)) == 3 else math.nan, resamplings=200, seed=0)
    assert found.value == 1.0 and found.low is None and "of 200" in found.reason
    rare = bootstrap_by_field(fields, lambda i: math.nan if len(set(i)) == 3 else 1.0, resamplings=200, seed=0)
    assert (rare.low, rare.high) == (1.0, 1.0)
    assert json.loads(json.dumps(rare.to_json(), allow_nan=False))["value"] is None


def test_the_same_seed_draws_the_same() -> None:
    values = np.arange(12.0)
    fields = [str(i // 2) for i in range(12)]
    one, same, other = (
        bootstrap_by_field(fields, lambda i: float(values[i].mean()), resamplings=30, seed=seed) for seed in (4, 4, 5)
    )
    assert one == same and one != other


def test_seeds_are_drawn_within_drawn_fields() -> None:
    # Scores field + seed / 10. Within a drawn field every seed is replaced by one of its own.
    rows = list(product((0, 1), (0, 1)))
    fields, seeds = [str(f) for f, _ in rows], [s for _, s in rows]
    scores, seen = np.array([f + s / 10 for f, s in rows]), set()

    def mean(indices: np.ndarray) -> float:
        assert len(indices) == 4
        seen.add(round(float(scores[indices].mean()), 6))
        return float(scores[indices].mean())

    found = bootstrap_by_field_and_seed(fields, seeds, mean, resamplings=500, seed=0)
    # Fields give 0, 1/2 or 1; four seeds, each 0 or 0.1, add k/40.
    assert seen == {round(f + k / 40, 6) for f in (0.0, 0.5, 1.0) for k in range(5)}
    assert found.unit == "field, then seed" and found.n_fields == 2


def test_a_paired_effect_is_free_of_what_both_arms_share() -> None:
    rng = np.random.default_rng(0)
    fields, seeds = [str(i // 3) for i in range(30)], [i % 3 for i in range(30)]
    control = rng.normal(size=30) * 100
    treated = control + 0.5
    found = bootstrap_by_field_and_seed(
        fields, seeds, lambda i: float((treated[i] - control[i]).mean()), resamplings=50, seed=0
    )
    assert found.low == pytest.approx(0.5, abs=1e-9) and found.high == pytest.approx(0.5, abs=1e-9)  # rounding of 100s


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(InputError, match="no samples"):
        bootstrap_by_field([], lambda i: 0.0, resamplings=10, seed=0)
    with pytest.raises(InputError, match="0 resamplings"):
        bootstrap_by_field(["a", "b"], lambda i: 0.0, resamplings=0, seed=0)
    with pytest.raises(InputError, match="2 fields and 1 seeds"):
        bootstrap_by_field_and_seed(["a", "b"], [0], lambda i: 0.0, resamplings=10, seed=0)

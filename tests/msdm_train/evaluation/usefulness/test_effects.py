"""Aggregation: expectations by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from msdm_train.evaluation.usefulness.effects import Row, mean_over_fields, rows_of, table_of
from msdm_train.evaluation.usefulness.forest import draw_forest
from msdm_train.evaluation.usefulness.score import METRICS


def result(arm: str, seed: int, scores: dict[str, float], nuclei: str = "columnar") -> dict[str, Any]:
    """The JSON of a part whose fields have these scores, equal in all metrics."""
    rows = [{"field": f, "nuclei": nuclei, **dict.fromkeys(METRICS, value)} for f, value in scores.items()]
    return {"fraction": 1.0, "arm": arm, "seed": seed, "scores": rows}


def effect(results: list[dict[str, Any]], arm: str, base: str) -> Row:
    (row,) = [r for r in rows_of(table_of(results))[1] if (r.arm, r.base, r.metric) == (arm, base, "pq")]
    return row


def test_effect_is_the_mean_of_differences_paired_by_field_and_seed() -> None:
    results = [
        result("classical", 0, {"a": 0.5, "b": 0.2}),
        result("classical", 1, {"a": 0.6, "b": 0.3}),
        result("columnar", 0, {"a": 0.7, "b": 0.1}),
        result("columnar", 1, {"a": 0.6, "b": 0.6}),
    ]
    # a: +0.2 and 0.0, b: -0.1 and +0.3
    row = effect(results, "columnar", "classical")
    assert row.interval.value == pytest.approx(0.1)
    assert (row.interval.n_fields, row.n_seeds, row.interval.unit) == (2, 2, "field, then seed")


def test_a_constant_effect_has_an_interval_of_no_width() -> None:
    fields = {name: 0.3 + 0.01 * i for i, name in enumerate("abcdefgh")}
    results = [result("classical", 0, fields), result("columnar", 0, {f: v + 0.05 for f, v in fields.items()})]
    interval = effect(results, "columnar", "classical").interval
    # Differences of binary fractions: equal to rounding.
    assert interval.low == pytest.approx(0.05) and interval.high == pytest.approx(0.05)
    assert not interval.exploratory


def test_seven_fields_are_exploratory() -> None:
    fields = dict.fromkeys("abcdefg", 0.5)
    assert effect([result("real", 0, fields), result("classical", 0, fields)], "classical", "real").interval.exploratory


def test_samples_without_a_partner_are_left_out() -> None:
    results = [
        result("classical", 0, {"a": 0.5, "b": 0.2}),
        result("columnar", 0, {"a": 0.7}),
        result("columnar", 1, {"a": 0.1, "b": 0.9}),
    ]
    row = effect(results, "columnar", "classical")
    assert row.interval.value == pytest.approx(0.2)
    assert (row.interval.n_fields, row.interval.low) == (1, None)


def test_a_field_with_more_seeds_weighs_no_more() -> None:
    statistic = mean_over_fields(["a", "a", "a", "b"], [1.0, 1.0, 1.0, 0.0])
    assert statistic(np.arange(4)) == pytest.approx(0.5)
    # a resampling that drew the field a twice and b once
    assert statistic(np.array([0, 1, 2, 2, 1, 0, 3])) == pytest.approx(2 / 3)


def test_nuclei_and_fractions_are_never_mixed() -> None:
    results = [
        result("real", 0, {"a": 0.1}),
        result("classical", 0, {"a": 0.2}),
        result("real", 0, {"a": 0.5}, "others"),
        result("classical", 0, {"a": 0.9}, "others"),
        {**result("classical", 0, {"a": 0.4}), "fraction": 0.25},
    ]
    effects = [(r.fraction, r.nuclei, round(r.interval.value, 9)) for r in rows_of(table_of(results))[1]]
    assert effects == [(1.0, "columnar", 0.1)] * len(METRICS) + [(1.0, "others", 0.4)] * len(METRICS)
    # scores: two arms and one arm alone, in every metric
    assert len(rows_of(table_of(results))[0]) == 5 * len(METRICS)


def test_no_results_give_no_rows() -> None:
    assert rows_of({}) == ([], [])


def test_plot_of_nothing_is_drawn() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    draw_forest(figure, {"effects": [], "parts": {"done": 0, "of": 40}})
    assert len(figure.axes) == 2

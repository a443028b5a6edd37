"""Effects of arms against their bases, paired by field and seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdm_train.evaluation.statistics import Interval, Statistic, bootstrap_by_field_and_seed
from msdm_train.evaluation.usefulness.arms import ARMS
from msdm_train.evaluation.usefulness.score import METRICS, NUCLEI

RESAMPLINGS = 2000

#: (fraction, nuclei, arm, field, seed) -> score of each metric.
Table = dict[tuple[float, str, str, str, int], dict[str, float]]


@dataclass(frozen=True)
class Row:
    """A number with its interval, over the held-out fields of all folds.

    Args:
        base: arm that was subtracted; empty for the score itself.
        n_seeds: seeds of the field that has most.
    """

    fraction: float
    nuclei: str
    metric: str
    arm: str
    base: str
    n_seeds: int
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        head = {name: getattr(self, name) for name in ("fraction", "nuclei", "metric", "arm", "base", "n_seeds")}
        return {**head, **self.interval.to_json()}


def table_of(results: Sequence[dict[str, Any]]) -> Table:
    """Scores of the JSON of parts. A field is held out in one fold, so field and seed name a sample."""
    return {
        (result["fraction"], score["nuclei"], result["arm"], score["field"], result["seed"]): {
            metric: score[metric] for metric in METRICS
        }
        for result in results
        for score in result["scores"]
    }


def rows_of(table: Table) -> tuple[list[Row], list[Row]]:
    """Scores of all arms, and effects of all arms against their bases; nothing where there is no sample."""
    fractions = sorted({key[0] for key in table})
    scores, effects = [], []
    for fraction in fractions:
        for nuclei in NUCLEI:
            for arm in ARMS:
                for metric in METRICS:
                    scores.append(_row(table, fraction, nuclei, metric, arm.name, ""))
                    for base in arm.bases:
                        effects.append(_row(table, fraction, nuclei, metric, arm.name, base))
    return [row for row in scores if row], [row for row in effects if row]


def _row(table: Table, fraction: float, nuclei: str, metric: str, arm: str, base: str) -> Row | None:
    fields, seeds, values = [], [], []
    for key, scores in sorted(table.items()):
        if key[:3] != (fraction, nuclei, arm):
            continue
        field, seed = key[3:]
        against = table.get((fraction, nuclei, base, field, seed))
        if base and against is None:
            continue
        fields.append(field)
        seeds.append(seed)
        values.append(scores[metric] - (against[metric] if against else 0.0))
    if not values:
        return None
    interval = bootstrap_by_field_and_seed(
        fields, seeds, mean_over_fields(fields, values), resamplings=RESAMPLINGS, seed=0
    )
    return Row(fraction, nuclei, metric, arm, base, max(fields.count(field) for field in fields), interval)


def mean_over_fields(fields: Sequence[str], values: Sequence[float]) -> Statistic:
    """The statistic: mean over fields of the mean over seeds, so that a field with more seeds weighs no more.

    A bootstrap that draws a field draws as many seeds as it has, so these weights hold in resamplings too.
    """
    value, seeds = np.asarray(values, np.float64), Counter(fields)
    weight = np.array([1 / seeds[field] for field in fields])
    return lambda indices: float(np.average(value[indices], weights=weight[indices]))

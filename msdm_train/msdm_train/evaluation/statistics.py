"""Intervals by the bootstrap (Efron and Tibshirani 1993, chapter 13), whose unit is the field and not the tile.

Windows of one field share its stain, its section and its camera. An interval that resamples windows is therefore too
narrow; here whole fields are drawn with replacement and bring all their samples along.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from msdm_engine.errors import InputError

#: Below this number of fields an effect is called exploratory.
EXPLORATORY_BELOW = 8
LEVEL = 0.95

#: [m] indices into the samples -> the number of interest; nan where it is not defined on them.
Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % percentile interval.

    Args:
        value: the statistic on all samples.
        low, high: ends of the interval; None where there is none.
        n_fields: fields that the samples came from.
        unit: what was resampled.
        reason: why there is no interval; empty where there is one.
    """

    value: float
    low: float | None
    high: float | None
    n_fields: int
    unit: str = "field"
    reason: str = ""

    @property
    def exploratory(self) -> bool:
        """Too few fields for more than a hint."""
        return self.n_fields < EXPLORATORY_BELOW

    def to_json(self) -> dict[str, Any]:
        """Its parts, with null for what is not finite."""
        value = self.value if np.isfinite(self.value) else None
        return {**asdict(self), "value": value, "level": LEVEL, "exploratory": self.exploratory}


def bootstrap_by_field(fields: Sequence[str], statistic: Statistic, *, resamplings: int, seed: int) -> Interval:
    """Draws fields with replacement, as many as there are; each brings all its samples.

    Args:
        fields: field of each sample.
        statistic: of the samples at the given indices, which repeat where a field was drawn twice. A resampling on
            which it is not finite is left out; if more than half are, there is no interval.
        resamplings: number of draws, at least 1.
        seed: of the draws.

    Raises:
        InputError: no samples, or fewer than one resampling.
    """
    members = _members(fields)

    def draw(rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])

    return _bootstrap(draw, len(fields), len(members), "field", statistic, resamplings, seed)


def bootstrap_by_field_and_seed(
    fields: Sequence[str], seeds: Sequence[int], statistic: Statistic, *, resamplings: int, seed: int
) -> Interval:
    """Draws fields with replacement, and for each drawn field its seeds with replacement: for repeated experiments.

    A sample is one score, of one field and one seed of training or sampling. A paired effect of two arms is the
    statistic ``lambda i: (treated[i] - control[i]).mean()`` on scores that stand in one order.

    Args:
        fields, seeds: of each sample; otherwise as :func:`bootstrap_by_field`.

    Raises:
        InputError: no samples, lists of unequal length, or fewer than one resampling.
    """
    if len(fields) != len(seeds):
        raise InputError(f"{len(fields)} fields and {len(seeds)} seeds are given", note="legal: one of each a sample")
    members = [[rows[i] for i in _members([seeds[k] for k in rows])] for rows in _members(fields)]

    def draw(rng: np.random.Generator) -> np.ndarray:
        drawn = (members[i] for i in rng.integers(len(members), size=len(members)))
        return np.concatenate([of_seed[j] for of_seed in drawn for j in rng.integers(len(of_seed), size=len(of_seed))])

    return _bootstrap(draw, len(fields), len(members), "field, then seed", statistic, resamplings, seed)


def _members(keys: Sequence[Hashable]) -> list[np.ndarray]:
    """Indices of each key's samples, keys in order of appearance."""
    found: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return [np.array(indices) for indices in found.values()]


def _bootstrap(
    draw: Callable[[np.random.Generator], np.ndarray],
    n: int,
    n_fields: int,
    unit: str,
    statistic: Statistic,
    resamplings: int,
    seed: int,
) -> Interval:
    if n == 0:
        raise InputError("a bootstrap over no samples was asked for", hint="score at least one picture")
    if resamplings < 1:
        raise InputError(f"{resamplings} resamplings were asked for", note="legal: 1 or more")
    value = float(statistic(np.arange(n)))
    if n_fields == 1:
        return Interval(value, None, None, 1, unit, "one field only: the spread between fields is unknown")
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(draw(rng)) for _ in range(resamplings)], np.float64)
    finite = drawn[np.isfinite(drawn)]
    if 2 * finite.size < resamplings:
        reason = f"the number is defined on {finite.size} of {resamplings} resamplings only"
        return Interval(value, None, None, n_fields, unit, reason)
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), n_fields, unit)

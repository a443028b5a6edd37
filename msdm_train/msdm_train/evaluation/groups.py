"""Matching conditions: groups of windows of one stain, architecture and nuclear size, and distances within them.

Distances between clouds depend on the number of points, so all of a comparison are taken at one n, averaged over
draws without replacement.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdm_train.data.crops import Crop, group_of
from msdm_train.evaluation.distances import Points, wasserstein2
from msdm_train.evaluation.samples import Sample

#: A group with fewer fields, train and the scored split together, goes into :data:`OTHER`.
MIN_FIELDS = 3
OTHER = "other"

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Group:
    """Windows of matching conditions.

    Args:
        name: its tags, or ``other``.
        tags: tag groups of the split that are in it.
        fields: fields of the split and of train that have windows in it.
        real: indices into the windows of the split.
        made: indices into the generated pairs.
        train: indices into the windows of train. Of ``other``, only those whose tags occur in the split's part of it:
            else its floor would compare stains.
    """

    name: str
    tags: tuple[str, ...]
    fields: int
    real: Indices
    made: Indices
    train: Indices

    @property
    def n(self) -> int:
        """Pictures that every side has."""
        return min(len(self.real), len(self.made), len(self.train))


def groups_of(
    real: Sequence[Crop], made: Sequence[Sample], train: Sequence[Crop], *, min_fields: int = MIN_FIELDS
) -> list[Group]:
    """The groups of the windows of a split, by name, ``other`` last."""
    fields: dict[str, set[str]] = defaultdict(set)
    for crop in (*real, *train):
        fields[group_of(crop)].add(crop.field)
    present = sorted({group_of(crop) for crop in real})
    members: dict[str, list[str]] = {tags: [tags] for tags in present if len(fields[tags]) >= min_fields}
    rare = [tags for tags in present if len(fields[tags]) < min_fields]
    if rare:
        members[OTHER] = rare
    return [
        Group(
            name,
            tuple(tags),
            len(set().union(*(fields[tag] for tag in tags))),
            np.array([i for i, crop in enumerate(real) if group_of(crop) in tags], np.int64),
            np.array([i for i, sample in enumerate(made) if sample.group in tags], np.int64),
            np.array([i for i, crop in enumerate(train) if group_of(crop) in tags], np.int64),
        )
        for name, tags in members.items()
    ]


@dataclass(frozen=True)
class Spread:
    """Mean and 5 to 95 % range of a distance over draws; n points on either side."""

    mean: float
    low: float
    high: float
    n: int
    draws: int

    def to_json(self) -> dict[str, Any]:
        """Its parts."""
        return asdict(self)


def spread_of(values: Sequence[float], n: int) -> Spread:
    """Summary of the distances of some draws."""
    low, high = np.quantile(values, [0.05, 0.95])
    return Spread(float(np.mean(values)), float(low), float(high), n, len(values))


def distance_at(a: Points, b: Points, n: int, draws: int, rng: np.random.Generator) -> Spread:
    """2-Wasserstein distance of n random points of either cloud, over draws.

    Args:
        a, b: at least n points each.
    """
    values = [wasserstein2(_pick(a, n, rng), _pick(b, n, rng)).value for _ in range(draws)]
    return spread_of(values, n)


def distance_of_halves(
    points: Points, fields: Sequence[str], n: int, draws: int, rng: np.random.Generator
) -> Spread | None:
    """Distance of n points of one half of the fields to n of the other half, over random halves.

    Returns:
        None where no half of the fields leaves n points on both sides.
    """
    names, of = np.unique(fields, return_inverse=True)
    values: list[float] = []
    for _ in range(4 * draws):  # fields differ in size: some halves are too small
        first = np.isin(of, rng.permutation(len(names))[: len(names) // 2])
        if min(first.sum(), (~first).sum()) >= n and len(values) < draws:
            values.append(wasserstein2(_pick(points[first], n, rng), _pick(points[~first], n, rng)).value)
    return spread_of(values, n) if values else None


def _pick(points: Points, n: int, rng: np.random.Generator) -> Points:
    return points[rng.choice(len(points), n, replace=False)]


@dataclass(frozen=True, eq=False)
class Standard:
    """Embeddings in standard deviations of the train windows: a root mean square over dimensions.

    Two independent train windows are then 2^(1/2) apart, root mean square, whatever the encoder. A dimension that does
    not vary in train is left out.
    """

    mean: Points
    scale: Points

    @staticmethod
    def of(train: Points) -> Standard:
        """From [n, D] embeddings of train windows."""
        std = train.std(0)
        varies = std > 1e-6 * std.max(initial=0.0)
        return Standard(train.mean(0), np.where(varies, std, np.inf) * np.sqrt(max(varies.sum(), 1)))

    def __call__(self, embeddings: Points) -> Points:
        """[n, D] -> [n, D]."""
        return (embeddings - self.mean) / self.scale

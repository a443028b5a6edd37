"""Three clouds in step: real windows, pairs made under their conditions, and train windows of the same group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msdm_train.evaluation.distances import Points, wasserstein2
from msdm_train.evaluation.groups import Group, Indices
from msdm_train.evaluation.samples import Sample


@dataclass(frozen=True, eq=False)
class Clouds:
    """Standardised embeddings of the windows of the split, of the generated pairs and of the windows of train."""

    real: Points
    made: Points
    train: Points


class Partners:
    """Finds a generated and a train partner for each real window.

    Args:
        made: pairs; ``crop`` says which real window lent one its conditions.
        groups: those that take part.
    """

    def __init__(self, made: Sequence[Sample], groups: Sequence[Group]) -> None:
        self.groups = groups
        self._made = {i: [k for k in g.made if made[k].crop == i] for g in groups for i in g.real.tolist()}
        #: Real windows that have a pair, over all groups.
        self.real: Indices = np.array(sorted(i for i, found in self._made.items() if found), np.int64)

    def draw(self, picked: Indices, rng: np.random.Generator) -> tuple[Indices, Indices, Indices]:
        """Equally many real windows, pairs of theirs (a random seed each) and random train windows of their groups.

        Where a group has more windows than train has, a random part of them takes part. A window that is given twice
        (by a bootstrap) has the same partners twice: all three clouds then repeat alike.

        Args:
            picked: real windows, out of ``self.real``.
        """
        partner: dict[int, tuple[int, int]] = {}
        for group in self.groups:
            mine = rng.permutation(np.intersect1d(picked, group.real))[: len(group.train)]
            for i, k in zip(mine.tolist(), rng.permutation(group.train).tolist(), strict=False):
                partner[i] = (int(rng.choice(self._made[i])), k)
        kept = [i for i in picked.tolist() if i in partner]
        pairs = np.array([partner[i] for i in kept], np.int64).reshape(-1, 2)
        return np.array(kept, np.int64), pairs[:, 0], pairs[:, 1]

    def ratio(self, clouds: Clouds, picked: Indices, draws: int, seed: int) -> float:
        """Distance of generated to real pictures over that of train to real ones, at equal n; nan if undefined."""
        if len(picked) < 2:
            return np.nan
        rng = np.random.default_rng(seed)
        near = floor = 0.0
        for _ in range(draws):
            i, made, train = self.draw(picked, rng)
            near += wasserstein2(clouds.real[i], clouds.made[made]).value
            floor += wasserstein2(clouds.real[i], clouds.train[train]).value
        return near / floor if floor > 0 else np.nan

    def replacement(self, clouds: Clouds, picked: Indices, draws: int, seed: int) -> tuple[float, float]:
        """How much farther half of the windows gets from the other half when something takes its place.

        Each group's windows are halved at random, A and B. The distance of A's generated pairs to the real windows B,
        over that of the real windows A to B: fields and conditions are the same on both sides of the ratio, windows
        are disjoint, so it is 1 for pairs that are drawn as real windows are.

        Returns:
            the ratio for generated pairs, and for train windows of the group in place of A: what other real fields
            give. Both nan where no group has two windows.
        """
        rng = np.random.default_rng(seed)
        sums = np.zeros(3)
        for _ in range(draws):
            i, made, train = self.draw(picked, rng)
            first, second = self._halves(i, rng)
            if not len(first) or not len(second):
                return np.nan, np.nan
            for k, cloud in enumerate((clouds.real[i], clouds.made[made], clouds.train[train])):
                sums[k] += wasserstein2(cloud[first], clouds.real[i[second]]).value
        return (float(sums[1] / sums[0]), float(sums[2] / sums[0])) if sums[0] > 0 else (np.nan, np.nan)

    def _halves(self, real: Indices, rng: np.random.Generator) -> tuple[Indices, Indices]:
        """Positions of two random halves of the windows of each group, equally many; copies stay together."""
        halves: tuple[list[int], list[int]] = ([], [])
        for group in self.groups:
            mine = rng.permutation(np.intersect1d(real, group.real))
            for half, number in zip(
                halves, (mine[: len(mine) // 2], mine[len(mine) // 2 : len(mine) // 2 * 2]), strict=True
            ):
                half += np.flatnonzero(np.isin(real, number)).tolist()
        return np.array(halves[0], np.int64), np.array(halves[1], np.int64)

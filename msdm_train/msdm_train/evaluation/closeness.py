"""Closeness to real pictures under matching conditions: distances of embeddings by group, and two-sample tests.

Each number stands beside its floor, what real windows of other fields give at equal n. Generated pairs borrow their
conditions from the very windows that they are compared with, so a ratio below one does not mean better than real: the
pairs know the stain of that field, the floor's windows do not. The harder ratio is "in place of real": pairs against
real windows of the same fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from msdm_engine.errors import InputError
from msdm_train.evaluation.closeness_plots import plot_groups, plot_pairs
from msdm_train.evaluation.context import Context
from msdm_train.evaluation.distances import (
    Points,
    frechet,
    kernel,
    kernel_distance_of,
    neighbourhood,
    wasserstein2,
)
from msdm_train.evaluation.groups import (
    Group,
    Indices,
    Spread,
    Standard,
    distance_at,
    distance_of_halves,
    groups_of,
)
from msdm_train.evaluation.partners import Clouds, Partners
from msdm_train.evaluation.rows import Row
from msdm_train.evaluation.score_sheet import ScoreSheet
from msdm_train.evaluation.statistics import Interval
from msdm_train.evaluation.two_sample import (
    NEVER_HELD,
    PLANTED,
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

#: Fewest pictures that a group needs on each side.
MIN_WINDOWS = 4
COUNTED = (
    "balanced accuracy on held-out fields",
    "share of windows on held-out fields whose own generated picture scores as the more generated of the two",
)


@dataclass(frozen=True)
class Effort:
    """How long it takes.

    Args:
        draws: of equal numbers, for a mean distance.
        inner_draws: for each resampling of a bootstrap.
        steps: of the classifier on pixels.
    """

    draws: int
    inner_draws: int
    steps: int


QUICK, FULL = Effort(20, 2, 100), Effort(100, 4, 300)


@dataclass(frozen=True)
class GroupScore:
    """Distances of one group at one n.

    Args:
        matched: generated pairs to the real windows whose conditions they have.
        floor: windows of the split to train windows of the group.
        halves: random halves of the group's fields, of split and train together; None: no half is large enough.
        mismatched: generated pairs to the real windows of each other group.
    """

    group: Group
    matched: Spread
    floor: Spread
    halves: Spread | None
    mismatched: dict[str, Spread]

    @property
    def mismatched_mean(self) -> float:
        """Mean over the other groups; nan without any."""
        return float(np.mean([s.mean for s in self.mismatched.values()])) if self.mismatched else np.nan

    def to_json(self) -> dict[str, Any]:
        """A line of the table of groups."""
        return {
            "group": self.group.name,
            "tags": ", ".join(self.group.tags),
            "fields, split and train": self.group.fields,
            "windows": len(self.group.real),
            "n": self.matched.n,
            "matched": self.matched.mean,
            "floor": self.floor.mean,
            "floor, 5 %": self.floor.low,
            "floor, 95 %": self.floor.high,
            "floor by halves": self.halves.mean if self.halves else None,
            "mismatched": self.mismatched_mean,
        }


class Closeness:
    """What the parts of the section share: standardised embeddings and groups."""

    def __init__(self, context: Context) -> None:
        self.context, self.effort = context, QUICK if context.quick else FULL
        raw = [
            context.embed([item.image for item in part]) for part in (context.real, context.generated, context.train)
        ]
        self.standard = Standard.of(raw[2])
        self.clouds = Clouds(*(self.standard(points) for points in raw))
        found = groups_of(context.real, context.generated, context.train)
        self.groups = [group for group in found if group.n >= MIN_WINDOWS]
        self.left_out = [group for group in found if group.n < MIN_WINDOWS]
        if not self.groups:
            raise InputError(
                f"no group has {MIN_WINDOWS} real windows, generated pairs and train windows each",
                hint="use smaller windows, more seeds or a data set with more fields",
            )
        self.partners = Partners(context.generated, self.groups)

    @cached_property
    def drawn(self) -> tuple[Indices, Indices, Indices]:
        """One draw of partners for all windows: for what needs one set of pictures."""
        return self.partners.draw(self.partners.real, np.random.default_rng(self.context.seed))

    def embedded(self, images: np.ndarray) -> Points:
        """[n, H, W, 3] uint8 -> [n, D] standardised; n may be 0."""
        return self.standard(self.context.embed(list(images))) if len(images) else self.clouds.real[:0]

    def fields(self, picked: Indices) -> list[str]:
        """Fields of real windows."""
        return [self.context.real[i].field for i in picked]

    def score_groups(self) -> list[GroupScore]:
        """All groups at the n that the smallest allows, so that every number compares with every other."""
        n = min(group.n for group in self.groups)
        return [self._score(group, n) for group in self.groups]

    def _score(self, group: Group, n: int) -> GroupScore:
        clouds, draws, rng = self.clouds, self.effort.draws, np.random.default_rng(self.context.seed)
        real, made, train = clouds.real[group.real], clouds.made[group.made], clouds.train[group.train]
        names = self.fields(group.real) + [self.context.train[i].field for i in group.train]
        return GroupScore(
            group,
            distance_at(made, real, n, draws, rng),
            distance_at(real, train, n, draws, rng),
            distance_of_halves(np.concatenate([real, train]), names, n, draws, rng),
            {
                other.name: distance_at(made, clouds.real[other.real], n, draws, rng)
                for other in self.groups
                if other is not group
            },
        )


def run(context: Context) -> dict[str, Any]:
    """Rows, the table of groups, other measures and plots; see the module's docstring.

    Raises:
        InputError: no group has enough pictures on all sides.
    """
    parts, sheet = Closeness(context), ScoreSheet(context)
    for group in parts.left_out:
        reason = f"it has {len(group.real)} windows, {len(group.made)} pairs and {len(group.train)} train windows"
        sheet.refused.append({"name": f"group {group.name}", "reason": f"{reason}; {MIN_WINDOWS} of each are needed"})
    scores = parts.score_groups()
    ratio_rows(parts, scores, sheet)
    replacement_rows(parts, sheet)
    measures = other_measures(parts, sheet)
    sheet.attempt("two-sample test", lambda: two_sample_rows(parts, sheet))
    return {
        **sheet.to_json(),
        "encoder": context.embed.identity,
        "groups": [score.to_json() for score in scores],
        "other measures": measures,
        "plots": [plot_groups(context.out, scores), plot_pairs(context.out, scores)],
    }


def ratio_rows(parts: Closeness, scores: list[GroupScore], sheet: ScoreSheet) -> None:
    """Matched distance over the floor, by group and pooled; the ceiling is mismatched over floor."""
    protocol = (
        "2-Wasserstein distance of the embeddings of generated pairs to the real windows of their conditions, over "
        "that of train windows of the same groups to those real windows, equal n, mean of draws; floor: as far as "
        "real windows of other fields; ceiling: pairs of the group against real windows of other groups"
    )
    ceilings = [score.mismatched_mean / score.floor.mean for score in scores]
    pooled = (parts.partners.real, "all groups", float(np.mean(ceilings)))
    by_group = [
        (np.intersect1d(parts.partners.real, score.group.real), score.group.name, ceiling)
        for score, ceiling in zip(scores, ceilings, strict=True)
    ]
    for real, name, ceiling in [pooled, *by_group]:

        def ratio(picked: Indices, real: Indices = real) -> float:
            return parts.partners.ratio(parts.clouds, real[picked], parts.effort.inner_draws, sheet.seed)

        sheet.statistic(
            f"distance over floor, {name}", ratio, parts.fields(real), protocol,
            floor=1.0, ceiling=ceiling if np.isfinite(ceiling) else None, want="low",
        )  # fmt: skip


def replacement_rows(parts: Closeness, sheet: ScoreSheet) -> None:
    """Generated pairs in place of half of the real windows, by group and pooled."""
    protocol = (
        "2-Wasserstein distance of the generated pairs of one random half of each group's windows to the real windows "
        "of the other half, over that of the real windows of the first half, equal n, mean of draws; floor: pairs "
        "drawn as real windows of the same fields are; ceiling: train windows of the same groups in place of the pairs"
    )
    groups = [(np.intersect1d(parts.partners.real, group.real), group.name) for group in parts.groups]
    for real, name in [(parts.partners.real, "all groups"), *groups]:

        def ratio(picked: Indices, real: Indices = real) -> float:
            return parts.partners.replacement(parts.clouds, real[picked], parts.effort.inner_draws, sheet.seed)[0]

        ceiling = parts.partners.replacement(parts.clouds, real, parts.effort.draws, sheet.seed)[1]
        sheet.statistic(
            f"in place of real, {name}", ratio, parts.fields(real), protocol,
            floor=1.0, ceiling=ceiling if np.isfinite(ceiling) else None, want="low",
        )  # fmt: skip


def other_measures(parts: Closeness, sheet: ScoreSheet) -> list[dict[str, Any]]:
    """Frechet and kernel distance, precision, recall, density and coverage, all groups together."""
    i, made, train = parts.drawn
    real, fake, reference = parts.clouds.real[i], parts.clouds.made[made], parts.clouds.train[train]
    _kernel_row(parts, sheet, real, fake, reference)
    found: list[dict[str, Any]] = []
    for measure in (wasserstein2, frechet):
        ours, floor = measure(real, fake), measure(real, reference)
        found.append({"measure": ours.criterion, "value": ours.value, "floor": floor.value, "n": ours.n,
                      "warning": ours.warning})  # fmt: skip
    try:
        ours_near, floor_near = neighbourhood(real, fake), neighbourhood(real, reference)
    except InputError as error:
        sheet.refused.append({"name": "precision, recall, density, coverage", "reason": error.render()})
        return found
    fields = len(set(parts.fields(i)))
    reason = "a point that is drawn twice is its own nearest neighbour, so fields cannot be resampled"
    for name in ("precision", "recall", "density", "coverage"):
        value = Interval(getattr(ours_near, name), None, None, fields, reason=reason)
        protocol = f"{ours_near.criterion}; k {ours_near.k_recall} and {ours_near.k_coverage}, all groups; " + (
            "ceiling: train windows of the same groups in place of the generated"
        )
        sheet.rows.append(
            Row(name, value, ours_near.n, protocol, want="high", floor=0.0, ceiling=getattr(floor_near, name))
        )
    return found


def _kernel_row(parts: Closeness, sheet: ScoreSheet, real: Points, made: Points, train: Points) -> None:
    # Standardised points have a squared length of about 1; the kernel divides by D and is made for about D.
    real, made, train = (np.sqrt(points.shape[1]) * points for points in (real, made, train))
    rr, mm, rm = kernel(real, real), kernel(made, made), kernel(real, made)
    every = np.arange(len(real))
    floor = kernel_distance_of(rr, kernel(train, train), kernel(real, train), every, every)
    sheet.statistic(
        "kernel distance", lambda k: kernel_distance_of(rr, mm, rm, k, k), parts.fields(parts.drawn[0]),
        "KID (Binkowski et al. 2018), unbiased, of embeddings with standard deviations of one, all groups; floor: "
        "train windows of the same groups in place of the generated", floor=floor, want="low",
    )  # fmt: skip


def two_sample_rows(parts: Closeness, sheet: ScoreSheet) -> None:
    """Accuracy of telling real from generated on held-out fields, by embeddings and by pixels, and what it is worth."""
    context, (i, made, train) = parts.context, parts.drawn
    fields, train_fields = parts.fields(i), [context.train[k].field for k in train]
    count = count_of_folds(fields, train_fields)
    folds, train_folds = folds_of(fields, count, sheet.seed), folds_of(train_fields, count, sheet.seed)
    lenders = np.array([sample.crop for sample in context.generated_train], np.int64)
    pictures = [
        np.stack([of[k].image for k in index])
        for of, index in ((context.real, i), (context.generated, made), (context.train, train))
    ]
    clouds = [parts.clouds.real[i], parts.clouds.made[made], parts.clouds.train[train]]
    beside = [_stacked([context.train[k].image for k in lenders]), _stacked([s.image for s in context.generated_train])]
    noisy = [planted(pictures[0], sheet.seed), planted(beside[0], sheet.seed + 1)]
    embedded = [*clouds, *(parts.embedded(some) for some in (*beside, *noisy))]
    on_pixels = pixel_classifier(steps=parts.effort.steps, seed=sheet.seed)
    for name, classify, (real, fake, reference, lent, lent_fake, noise, lent_noise) in (
        ("embeddings, logistic regression", logistic, embedded),
        ("pixels, small network", on_pixels, [*pictures, *beside, *noisy]),
    ):
        context.say(f"closeness: two-sample test on {name}")
        ours = told_apart(*_scores(real, fake, folds, folds, classify, (lent, lent_fake)))
        power, _ = told_apart(*_scores(real, noise, folds, folds, classify, (lent, lent_noise)))
        floor = told_apart(*_scores(real, reference, folds, train_folds, classify))
        flaw = flaw_of(ours[0], fields, float(power.mean()))
        for counted, how, value, of_real in zip(("accuracy", "choice"), COUNTED, ours, floor, strict=True):
            sheet.mean(
                f"told real from generated by {name}: {counted}", value, fields,
                f"{how} (Lopez-Paz and Oquab 2017); a field's real windows and the pairs of their conditions are held "
                "out together, windows of train and pairs of theirs are learnt from as well; 0.5: not told apart; "
                "floor: real windows of the split against real train windows of the same groups, where it is above 0.5",
                floor=max(0.5, float(of_real.mean())), ceiling=1.0, want="low", flaw=flaw,
            )  # fmt: skip
        sheet.mean(
            f"told real from real with noise by {name}: accuracy", power, fields,
            f"the same test on real windows and the same windows with Gaussian noise of {PLANTED:g} of 255, which it "
            "should find. It says nothing of the generator, but what the accuracies above are worth",
            floor=0.5, ceiling=1.0, want="high",
        )  # fmt: skip


def _stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    """[n, H, W, 3] uint8; n may be 0."""
    return np.stack(images) if len(images) else np.empty((0, 1, 1, 3), np.uint8)


def _scores(
    first: np.ndarray,
    second: np.ndarray,
    folds: np.ndarray,
    second_folds: np.ndarray,
    classify: Classifier,
    beside: tuple[np.ndarray, ...] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the items of either class, each by a classifier that never saw its field.

    Args:
        beside: of either class, equally many that every classifier learns from.
    """
    n, more = len(first), [items for items in beside if len(items)]
    labels = np.repeat([0, 1, *range(len(more))], [n, len(second), *map(len, more)])
    always = np.full(sum(map(len, more)), NEVER_HELD)
    sides = Sides(np.concatenate([first, second, *more]), labels, np.concatenate([folds, second_folds, always]))
    scores = scores_of(sides, classify)
    return scores[:n], scores[n : n + len(second)]

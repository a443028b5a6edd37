"""Scales, weights and biases of every target: what the criteria propose, decided by the layer's own output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from msdm_calibration.quantize.collect import Feed
from msdm_calibration.quantize.criteria import proposals, weight_scales
from msdm_calibration.quantize.follow_levels import level_factors, levelled
from msdm_calibration.quantize.grids import Grid
from msdm_calibration.quantize.histogram import centres
from msdm_calibration.quantize.migrate import WORTH, divided
from msdm_calibration.quantize.rewrite import Recipe, migrated
from msdm_calibration.quantize.samples import Layer, Samples
from msdm_calibration.quantize.subject import Subject
from msdm_calibration.quantize.targets import Target

#: Scale of an input that was zero in all trajectories: any does; one keeps small values zero.
SILENT = "silent"


@dataclass(frozen=True)
class Choice:
    """A recipe, and how it came about.

    Args:
        criterion: whose scale was taken.
        error: root of the squared error of the layer's output over its mean square, weighted by level, on samples.
        errors: criterion -> the squares, summed over the layers that share the input.
    """

    recipe: Recipe
    criterion: str
    error: float
    errors: dict[str, float]


def mass_of(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[BINS]: histogram over all levels, each with its weight over the mean square of the values at that level.

    A criterion that sums squared errors then sums noise-to-signal ratios of the levels that matter, so that levels at
    which a layer's values are large do not outvote those at which they are small.

    Args:
        counts: [steps, BINS]; weights: [steps], summing to one.
    """
    squares = np.square(centres())
    power = counts @ squares
    totals = counts.sum(1)
    scale = np.divide(weights * totals, power, out=np.zeros(len(weights)), where=power > 0)
    return np.asarray((counts * np.divide(scale, totals, out=np.zeros_like(scale), where=totals > 0)[:, None]).sum(0))


def choose(
    subject: Subject,
    feeds: tuple[Feed, ...],
    counts: Mapping[str, np.ndarray],
    samples: Samples,
    weights: np.ndarray,
    grid: Grid,
) -> dict[str, Choice]:
    """Node -> choice.

    Args:
        weights: [steps] of the noise levels.
    """
    found: dict[str, Choice] = {}
    for feed in feeds:
        plain = _tried(subject, feed, counts[feed.name], None, samples, weights, grid)
        levels = level_factors(counts[feed.name], weights, grid) if len(feed.targets) == 1 else None
        if levels is not None:
            followed = _tried(subject, feed, counts[feed.name], levels, samples, weights, grid)
            if followed.least < (1 - WORTH) * plain.least:
                plain = followed
        found |= plain.choices()
    return found


@dataclass(frozen=True)
class _Offer:
    """All criteria's scales of one feed, tried on its layers."""

    feed: Feed
    layers: list[_Tried]
    offered: dict[str, float]
    errors: dict[str, float]
    levels: np.ndarray | None

    @property
    def least(self) -> float:
        return min(self.errors.values(), default=0.0)

    def choices(self) -> dict[str, Choice]:
        """Of each target of the feed."""
        best = min(self.errors, key=lambda name: self.errors[name]) if self.errors else SILENT
        scale = self.offered.get(best, 1.0)
        found = {}
        for each in self.layers:
            bias = each.target.bias + (each.shift(scale) if self.errors and each.takes_bias else 0.0)
            recipe = Recipe(scale, each.scales, self.feed.migration, np.asarray(bias, np.float32), self.levels)
            error = each.error(scale) ** 0.5 if self.errors else 0.0
            found[each.target.node] = Choice(recipe, best, error, self.errors)
        return found


def _tried(
    subject: Subject,
    feed: Feed,
    counts: np.ndarray,
    levels: np.ndarray | None,
    samples: Samples,
    weights: np.ndarray,
    grid: Grid,
) -> _Offer:
    layers = [_Tried(subject, target, feed, levels, samples, weights, grid) for target in feed.targets]
    offered = proposals(mass_of(levelled(counts, levels), weights), grid)
    errors = {name: sum(each.error(scale) for each in layers) for name, scale in offered.items()}
    return _Offer(feed, layers, offered, errors, levels)


def _scales(target: Target, feed: Feed, grid: Grid) -> np.ndarray:
    return weight_scales(migrated(target, feed.migration), target.axis, grid)


class _Tried:
    """A target on its samples."""

    def __init__(
        self,
        subject: Subject,
        target: Target,
        feed: Feed,
        levels: np.ndarray | None,
        samples: Samples,
        weights: np.ndarray,
        grid: Grid,
    ) -> None:
        self.target, self.grid = target, grid
        at = list(samples.steps)
        self.weights = weights[at] / max(weights[at].sum(), 1e-30)
        # The weights are as they are: a level's factor leaves the layer as it went in.
        self._factors = np.ones(len(at), np.float32) if levels is None else levels[at]
        self.scales = _scales(target, feed, grid)
        self._layer = Layer(subject, target.node)
        self._weight = grid.rounded(migrated(target, feed.migration), target.per_output(self.scales))
        plain = samples.inputs[target.tensor]
        self._inputs = [divided(target, x, feed.migration) / f for x, f in zip(plain, self._factors, strict=True)]
        self._expected = [self._layer(x, target.weight) for x in plain]
        self._powers = [max(float(np.mean(np.square(y))), 1e-30) for y in self._expected]
        self._off: dict[float, list[np.ndarray]] = {}

    @property
    def takes_bias(self) -> bool:
        """A MatMul has none."""
        return self.target.op != "MatMul"

    def _offs(self, scale: float) -> list[np.ndarray]:
        if scale not in self._off:
            self._off[scale] = [
                f * self._layer(self.grid.rounded(x, scale), self._weight) - y
                for x, y, f in zip(self._inputs, self._expected, self._factors, strict=True)
            ]
        return self._off[scale]

    def error(self, scale: float) -> float:
        """Weighted mean over the levels of squared error over mean square."""
        each = zip(self.weights, self._offs(scale), self._powers, strict=True)
        return float(sum(w * float(np.mean(np.square(off))) / power for w, off, power in each))

    def shift(self, scale: float) -> np.ndarray:
        """[O] what the bias must take back: the mean error of each output channel (Nagel et al. 2019, section 4.2).

        With the weights of :meth:`error` it never raises that error on the samples.
        """
        axis = self.target.channel_axis
        total, norm = np.zeros(len(self.scales)), 0.0
        for w, off, power in zip(self.weights, self._offs(scale), self._powers, strict=True):
            others = tuple(i for i in range(off.ndim) if i != axis % off.ndim)
            total += w / power * off.mean(others, dtype=np.float64)
            norm += w / power
        return -total / norm if norm > 0 else total

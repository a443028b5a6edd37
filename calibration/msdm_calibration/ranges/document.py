"""The range report as JSON: typed, versioned, the same bytes for the same measurement."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from msdm_calibration.marked import Activation
from msdm_calibration.ranges.float16 import LARGEST, NORMAL, SUBNORMAL
from msdm_calibration.ranges.histogram import percentile, share_below
from msdm_calibration.ranges.statistics import GraphStatistics
from msdm_engine.errors import InputError

FORMAT, VERSION = "msdm-ranges", 1
#: Of magnitudes.
PERCENTS = (0.1, 1.0, 50.0, 99.0, 99.9, 99.99)
#: A channel is an outlier if its largest magnitude is this many times the median channel's: one scale for the whole
#: tensor then leaves a typical channel 4 of INT8's 7 bits of magnitude.
OUTLIER = 8.0
_DIGITS = 6


@dataclass(frozen=True)
class LevelRange:
    """What was seen of one activation at one noise level.

    Args:
        sigma: the noise level; None for a graph that does not run at every step.
        low, high: extrema of the finite values.
        mean, std: of the finite values.
        percentiles: of the magnitudes, at :data:`PERCENTS`; zeros count.
        zeros: share of exact zeros.
        below_normal, below_subnormal: shares of magnitudes above zero and below 2^-14 (6.1e-5), below 2^-24 (6e-8).
        underflow_loss: see :func:`msdm_calibration.ranges.float16.underflow_loss`; the largest of any batch.
        non_finite: how many values were infinite or NaN.
        count: finite values.
    """

    sigma: float | None
    low: float
    high: float
    mean: float
    std: float
    percentiles: tuple[float, ...]
    zeros: float
    below_normal: float
    below_subnormal: float
    underflow_loss: float
    non_finite: int
    count: int

    @property
    def largest(self) -> float:
        """Largest finite magnitude."""
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True)
class ActivationRange:
    """An activation at all its noise levels.

    Args:
        levels: empty where the activation only rearranges another (``same_values_as``), which has them, and no
            convolution or matrix product reads it.
        channels: largest magnitude of each channel over all noise levels, for what convolutions and matrix products
            read; else empty.
    """

    activation: Activation
    levels: tuple[LevelRange, ...]
    channels: tuple[float, ...]

    @property
    def worst(self) -> LevelRange:
        """The noise level with the largest magnitude."""
        return max(self.levels, key=lambda level: level.largest)

    @property
    def headroom_bits(self) -> float:
        """log2(65,504 / largest magnitude): below 0 it overflows; infinite for a tensor of zeros."""
        largest = self.worst.largest
        return math.log2(LARGEST / largest) if largest > 0 else math.inf

    @property
    def median_channel(self) -> float:
        """Median over the channels of their largest magnitude; 0 without channels."""
        return float(np.median(self.channels)) if self.channels else 0.0

    @property
    def outliers(self) -> tuple[int, ...]:
        """Channels whose largest magnitude is more than :data:`OUTLIER` times the median channel's."""
        median = self.median_channel
        return tuple(i for i, value in enumerate(self.channels) if median > 0 and value > OUTLIER * median)


@dataclass(frozen=True)
class RangeReport:
    """The whole report.

    Args:
        run: what decides the numbers: bundle, data, windows, sampling, runtime.
        graphs: activations of each graph in its order.
        conditions: ranges of what was asked for, by name: (low, high).
    """

    run: dict[str, Any]
    graphs: dict[str, tuple[ActivationRange, ...]]
    conditions: dict[str, tuple[float, float]]

    def to_json(self) -> str:
        """The text of the file; numbers have six digits."""
        raw = {
            "format": FORMAT,
            "version": VERSION,
            "run": self.run,
            "percents": PERCENTS,
            "level_columns": [column.name for column in fields(LevelRange)],
            "graphs": {
                name: [
                    {
                        **asdict(entry.activation),
                        "levels": [_row(level) for level in entry.levels],
                        "channels": [_short(value) for value in entry.channels],
                    }
                    for entry in entries
                ]
                for name, entries in self.graphs.items()
            },
            # With all digits: a window at the end of a range must not leave it.
            "conditions": self.conditions,
        }
        # A line for each activation: readable, and small.
        text = json.dumps(raw, allow_nan=False)
        return text.replace('{"tensor"', '\n{"tensor"') + "\n"

    @staticmethod
    def read(path: Path) -> RangeReport:
        """Reads a report.

        Raises:
            InputError: it cannot be read, or is no report of this version.
        """
        try:
            raw = json.loads(path.read_text())
            known = isinstance(raw, dict) and (raw.get("format"), raw.get("version")) == (FORMAT, VERSION)
            if not known:
                raise ValueError(f"not format {FORMAT}, version {VERSION}")
            graphs = {name: tuple(_entry(entry) for entry in entries) for name, entries in raw["graphs"].items()}
            conditions = {name: (float(low), float(high)) for name, (low, high) in raw["conditions"].items()}
            return RangeReport(dict(raw["run"]), graphs, conditions)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is not a range report: {error}", hint="make one with `msdm-calibrate ranges BUNDLE --data D`"
            ) from error


def activation_ranges(
    activations: Sequence[Activation], seen: GraphStatistics, sigmas: Sequence[float | None]
) -> tuple[ActivationRange, ...]:
    """What was measured of a graph's activations, in the graph's order.

    Args:
        activations: all of them; those that ``seen`` lacks only rearrange others.
        sigmas: noise level of each level of ``seen``.
    """
    places = {activation.tensor: i for i, activation in enumerate(seen.activations)}
    entries = []
    for activation in activations:
        i = places.get(activation.tensor)
        levels = () if i is None else tuple(_level(seen, i, j, sigma) for j, sigma in enumerate(sigmas))
        channels = seen.channels.get(activation.tensor)
        largest = () if channels is None else tuple(float(value) for value in channels.max(0))
        entries.append(ActivationRange(activation, levels, largest))
    return tuple(entries)


def _level(seen: GraphStatistics, i: int, j: int, sigma: float | None) -> LevelRange:
    counts = seen.counts[i, j]
    count = int(counts.sum())
    low, high = (float(ends[i, j]) if count else 0.0 for ends in (seen.low, seen.high))
    largest = max(abs(low), abs(high))
    mean = float(seen.total[i, j]) / count if count else 0.0
    variance = float(seen.squares[i, j]) / count - mean**2 if count else 0.0
    return LevelRange(
        sigma,
        low,
        high,
        mean,
        math.sqrt(max(variance, 0.0)),
        tuple(percentile(counts, percent, largest) for percent in PERCENTS),
        int(counts[0]) / count if count else 0.0,
        share_below(counts, NORMAL),
        share_below(counts, SUBNORMAL),
        float(seen.lost[i, j]),
        int(seen.non_finite[i, j]),
        count,
    )


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _row(level: LevelRange) -> list[Any]:
    return [_shortened(getattr(level, column.name)) for column in fields(LevelRange)]


def _shortened(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_short(one) for one in value]
    return _short(value) if isinstance(value, float) else value


def _entry(raw: dict[str, Any]) -> ActivationRange:
    named = {key: raw[key] for key in ("tensor", "node", "op", "layer", "same_values_as")}
    readers = tuple((str(node), str(op), int(position)) for node, op, position in raw["readers"])
    names = [column.name for column in fields(LevelRange)]
    levels = []
    for row in raw["levels"]:
        values = dict(zip(names, row, strict=True))
        levels.append(LevelRange(**{**values, "percentiles": tuple(values["percentiles"])}))
    return ActivationRange(Activation(**named, readers=readers), tuple(levels), tuple(raw["channels"]))

"""A report by layer and noise level: what the heat maps show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from msdm_calibration.ranges.document import ActivationRange, RangeReport
from msdm_calibration.ranges.float16 import LARGEST
from msdm_calibration.ranges.float32_rules import STATISTICS, float32_rules

#: Place of the median in the percentiles of a report.
_MEDIAN = 2
#: Layer of what stands before the first weight.
INPUTS = "(inputs)"


@dataclass(frozen=True)
class LayerLevel:
    """A layer at one noise level.

    Args:
        headroom_bits: log2(65,504 / largest magnitude) of its activations; below 0 is overflow.
        dynamic_bits: log2(largest / median magnitude), the most of its activations: bits of an integer's scale that a
            typical value does not reach. NaN where every median is zero.
    """

    headroom_bits: float
    dynamic_bits: float


def by_layer(report: RangeReport, graph: str) -> dict[str, list[LayerLevel]]:
    """Layers of a graph in its order, each at all noise levels.

    Left out are tensors of reductions (squares of norms, which stay float32 on any bundle) and what only rearranges
    others.
    """
    rules = float32_rules([entry.activation for entry in report.graphs[graph]])
    grouped: dict[str, list[ActivationRange]] = {}
    for entry in report.graphs[graph]:
        if entry.levels and rules.get(entry.activation.tensor) != STATISTICS:
            grouped.setdefault(entry.activation.layer or INPUTS, []).append(entry)
    levels = len(sigmas_of(report, graph))
    return {layer: [_level(entries, j) for j in range(levels)] for layer, entries in grouped.items()}


def sigmas_of(report: RangeReport, graph: str) -> list[float | None]:
    """Noise levels of a graph."""
    return next(([level.sigma for level in entry.levels] for entry in report.graphs[graph] if entry.levels), [])


def _level(entries: Sequence[ActivationRange], j: int) -> LayerLevel:
    largest = max(entry.levels[j].largest for entry in entries)
    spans = [
        entry.levels[j].largest / entry.levels[j].percentiles[_MEDIAN]
        for entry in entries
        if entry.levels[j].percentiles[_MEDIAN] > 0
    ]
    return LayerLevel(
        math.log2(LARGEST / largest) if largest > 0 else math.inf, math.log2(max(spans)) if spans else math.nan
    )

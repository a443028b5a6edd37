"""What a range report finds: activations near float16's limits, and outlier channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msdm_calibration.ranges.document import ActivationRange, RangeReport
from msdm_calibration.ranges.float16 import LARGEST, ROUNDOFF
from msdm_calibration.ranges.float32_rules import float32_rules

#: What is measured is a sample of what will be asked: this factor is kept in hand, as `msdm-export precision` does.
HEADROOM = 2.0
OVERFLOW, NEAR, UNDERFLOW = "overflow", "near overflow", "underflow"


@dataclass(frozen=True)
class Finding:
    """An activation that float16 does not hold.

    Args:
        kind: ``overflow`` (beyond 65,504, or not finite in float32 already), ``near overflow`` (less than a factor
            of two below it), ``underflow`` (rounding below the normal numbers takes more of its L2 norm than 2^-11).
        value: largest magnitude; share of the norm for an underflow.
        sigma: noise level at which it is worst; None before the first step and after the last.
        rule: of `msdm-export precision`, by which it is float32 on any bundle (:mod:`.float32_rules`); else empty.
    """

    graph: str
    layer: str
    node: str
    op: str
    tensor: str
    kind: str
    value: float
    sigma: float | None
    rule: str

    def text(self) -> str:
        """One line."""
        at = "" if self.sigma is None else f" at noise level {self.sigma:.4g}"
        if self.kind == UNDERFLOW:
            found = f"loses {self.value:.2g} of its L2 norm{at}, rounding takes {ROUNDOFF:.2g}"
        else:
            found = f"reaches {self.value:.4g}{at}, the largest float16 is {LARGEST:.6g}"
        made = f"{self.op} {self.node}".strip()
        return f"{self.kind}: {self.graph}, layer {self.layer or '-'}, {made} -> {self.tensor} {found}"


@dataclass(frozen=True)
class Outliers:
    """Channels far above the others in what a convolution or matrix product reads.

    Args:
        channels: their numbers.
        ratio: largest channel over the median channel.
        of: how many channels there are.
    """

    graph: str
    layer: str
    tensor: str
    channels: tuple[int, ...]
    ratio: float
    of: int


def findings_of(report: RangeReport) -> list[Finding]:
    """All findings: first those of no rule, then by kind, then the largest."""
    found: list[Finding] = []
    for graph, entries in report.graphs.items():
        rules = float32_rules([entry.activation for entry in entries])
        for entry in entries:
            if entry.levels:
                found += _findings(graph, entry, rules.get(entry.activation.tensor, ""))
    order = (OVERFLOW, NEAR, UNDERFLOW)
    return sorted(found, key=lambda finding: (bool(finding.rule), order.index(finding.kind), -finding.value))


def _findings(graph: str, entry: ActivationRange, rule: str) -> Iterator[Finding]:
    activation = entry.activation
    named = (graph, activation.layer, activation.node, activation.op, activation.tensor)
    broken = [level for level in entry.levels if level.non_finite]
    worst = entry.worst
    if broken:
        yield Finding(*named, OVERFLOW, worst.largest, broken[0].sigma, rule)
    elif worst.largest * HEADROOM > LARGEST:
        kind = OVERFLOW if worst.largest > LARGEST else NEAR
        yield Finding(*named, kind, worst.largest, worst.sigma, rule)
    lost = max(entry.levels, key=lambda level: level.underflow_loss)
    if lost.underflow_loss > ROUNDOFF:
        yield Finding(*named, UNDERFLOW, lost.underflow_loss, lost.sigma, rule)


def outliers_of(report: RangeReport) -> list[Outliers]:
    """Activations with outlier channels, the farthest first."""
    found = []
    for graph, entries in report.graphs.items():
        for entry in entries:
            if entry.outliers:
                ratio = max(entry.channels) / entry.median_channel
                activation = entry.activation
                found.append(
                    Outliers(graph, activation.layer, activation.tensor, entry.outliers, ratio, len(entry.channels))
                )
    return sorted(found, key=lambda one: -one.ratio)

"""The report in short: what a reader needs, in kilobytes, and the same as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from msdm_calibration.ranges.document import RangeReport
from msdm_calibration.ranges.findings import NEAR, OVERFLOW, UNDERFLOW, Finding, findings_of, outliers_of
from msdm_calibration.ranges.float16 import LARGEST
from msdm_calibration.ranges.layers import by_layer, sigmas_of

#: Findings and outliers that are listed; all are counted.
LISTED = 40


def summary_of(report: RangeReport) -> dict[str, Any]:
    """JSON of a few kilobytes."""
    found, outliers = findings_of(report), outliers_of(report)
    return {
        "run": report.run,
        "graphs": {graph: _graph(report, graph, found) for graph in report.graphs},
        "findings": [{**asdict(finding), "text": finding.text()} for finding in found[:LISTED]],
        "outliers": [{**asdict(one), "ratio": round(one.ratio, 2)} for one in outliers[:LISTED]],
        "activations_with_outlier_channels": len(outliers),
        "headroom_bits": {
            graph: {
                layer: [round(level.headroom_bits, 1) if math.isfinite(level.headroom_bits) else None for level in row]
                for layer, row in by_layer(report, graph).items()
            }
            for graph in report.graphs
        },
        "conditions": report.conditions,
    }


def _graph(report: RangeReport, graph: str, found: Sequence[Finding]) -> dict[str, Any]:
    measured = [entry for entry in report.graphs[graph] if entry.levels]
    mine = [finding for finding in found if finding.graph == graph]
    largest = max(measured, key=lambda entry: entry.worst.largest)
    levels = [level for entry in measured for level in entry.levels]
    total = sum(level.count for level in levels)
    return {
        "activations": len(report.graphs[graph]),
        "noise_levels": sigmas_of(report, graph),
        "values": total,
        "largest": {
            "tensor": largest.activation.tensor,
            "layer": largest.activation.layer,
            "value": largest.worst.largest,
            "sigma": largest.worst.sigma,
        },
        "zeros": sum(level.zeros * level.count for level in levels) / total,
        "below_normal": sum(level.below_normal * level.count for level in levels) / total,
        "below_subnormal": sum(level.below_subnormal * level.count for level in levels) / total,
        "findings": {
            kind: {
                "all": sum(finding.kind == kind for finding in mine),
                "float32_by_rule": sum(finding.kind == kind and bool(finding.rule) for finding in mine),
            }
            for kind in (OVERFLOW, NEAR, UNDERFLOW)
        },
    }


def graphs_table(summary: dict[str, Any]) -> list[str]:
    """Markdown: one row a graph."""
    rows = [
        "| graph | activations | values | largest magnitude | overflow | near | underflow | zeros | below 2^-14 |"
        " below 2^-24 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, graph in summary["graphs"].items():
        largest = graph["largest"]
        at = "" if largest["sigma"] is None else f" at noise level {largest['sigma']:.3g}"
        counts = [_count(graph["findings"][kind]) for kind in (OVERFLOW, NEAR, UNDERFLOW)]
        shares = [f"{100 * graph[key]:.2f} %" for key in ("zeros", "below_normal", "below_subnormal")]
        cells = [
            name,
            str(graph["activations"]),
            f"{graph['values']:.3g}",
            f"{largest['value']:.4g} ({largest['tensor']}{at})",
            *counts,
            *shares,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _count(found: dict[str, int]) -> str:
    return f"{found['all']}" + (f" ({found['float32_by_rule']} by rule)" if found["float32_by_rule"] else "")


def findings_table(summary: dict[str, Any], limit: int = LISTED) -> list[str]:
    """Markdown: the findings."""
    rows = [
        "| kind | graph | layer | node | tensor | value | of 65,504 | noise level | float32 by rule |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in summary["findings"][:limit]:
        share = "" if one["kind"] == UNDERFLOW else f"{one['value'] / LARGEST:.3g}"
        level = "" if one["sigma"] is None else f"{one['sigma']:.3g}"
        cells = [one["kind"], one["graph"], one["layer"] or "-", f"{one['op']} {one['node']}", one["tensor"]]
        more = [f"{one['value']:.4g}", share, level, one["rule"]]
        rows.append(f"| {' | '.join([*cells, *more])} |")
    return rows


def outliers_table(summary: dict[str, Any], limit: int = LISTED) -> list[str]:
    """Markdown: outlier channels."""
    rows = ["| graph | layer | tensor | outlier channels | largest over median |", "|---|---|---|---|---|"]
    for one in summary["outliers"][:limit]:
        count = f"{len(one['channels'])} of {one['of']}"
        rows.append(f"| {one['graph']} | {one['layer'] or '-'} | {one['tensor']} | {count} | {one['ratio']:.1f} |")
    return rows


def conditions_table(summary: dict[str, Any]) -> list[str]:
    """Markdown: what was asked for."""
    rows = ["| condition | from | to |", "|---|---|---|"]
    return rows + [f"| {name} | {low:.4g} | {high:.4g} |" for name, (low, high) in summary["conditions"].items()]

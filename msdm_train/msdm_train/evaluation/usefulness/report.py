"""The report of an experiment, finished or not: one JSON file, one plot, a few lines of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msdm_train.evaluation.plots import save_plot
from msdm_train.evaluation.sections import write_json
from msdm_train.evaluation.statistics import EXPLORATORY_BELOW
from msdm_train.evaluation.usefulness.arms import ARMS
from msdm_train.evaluation.usefulness.effects import rows_of, table_of
from msdm_train.evaluation.usefulness.forest import draw_forest
from msdm_train.evaluation.usefulness.parts import read_result
from msdm_train.evaluation.usefulness.run import read_experiment

REPORT_FILE = "report.json"
FORMAT = "msdm-usefulness/1"


def report_of(out: Path) -> dict[str, Any]:
    """Aggregates what the folder of an experiment holds; writes nothing.

    Raises:
        InputError: ``out`` holds no experiment.
    """
    experiment = read_experiment(out)
    results = {name: read_result(out, name, key) for name, key in experiment["parts"].items()}
    done = [result for result in results.values() if result is not None]
    missing = [name for name, result in results.items() if result is None]
    scores, effects = rows_of(table_of(done))
    return {
        "format": FORMAT,
        "complete": not missing,
        "parts": {"done": len(done), "of": len(results), "missing": missing},
        "protocol": experiment["text"],
        "settings": experiment["settings"],
        "data": experiment["data"],
        "arms": {arm.name: arm.title for arm in ARMS},
        "cells": experiment["cells"],
        "exploratory_below_fields": EXPLORATORY_BELOW,
        "effects": [row.to_json() for row in effects],
        "scores": [row.to_json() for row in scores],
        "fields": [
            {"fraction": r["fraction"], "arm": r["arm"], "seed": r["seed"], **score}
            for r in done
            for score in r["scores"]
        ],
    }


def write_report(out: Path) -> dict[str, Any]:
    """Writes ``report.json`` and ``plots/usefulness-effects.png`` into the folder of the experiment."""
    report = report_of(out)
    report["plots"] = [save_plot(out, "usefulness-effects", lambda f: draw_forest(f, report), size=(9.0, 6.5))]
    write_json(out / REPORT_FILE, report)
    return report


def report_lines(report: dict[str, Any], metric: str = "pq") -> list[str]:
    """Effects on one metric as lines of text, and what is missing."""
    parts = report["parts"]
    lines = [f"{parts['done']} of {parts['of']} parts" + ("" if report["complete"] else "; effects are of these alone")]
    lines += [_line(row) for row in report["effects"] if row["metric"] == metric]
    return lines


def _line(row: dict[str, Any]) -> str:
    interval = "no interval" if row["low"] is None else f"[{row['low']:+.3f}, {row['high']:+.3f}]"
    of = f"{row['n_fields']} fields, {row['n_seeds']} seed(s){', exploratory' if row['exploratory'] else ''}"
    where = f"{row['fraction']:4.0%} labels, {row['nuclei']:8s} nuclei"
    return f"{where}: {row['arm']} - {row['base']}: {row['metric'].upper()} {row['value']:+.3f} {interval}, {of}"

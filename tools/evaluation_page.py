"""Fills ``docs/evaluation.md`` and the README from the reports that ``msdm-train evaluate`` wrote.

A table stands between ``<!-- rows RESULT SECTION -->`` and ``<!-- end -->``, where RESULT names a file of
``benchmarks/results``; one score with its interval between ``<!-- score RESULT SECTION NAME -->`` and
``<!-- /score -->``. Prose around the markers is written by hand and stays.

    python tools/evaluation_page.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from msdm_train.evaluation.report import views_of
from msdm_train.evaluation.views import RowView, SectionView, shown

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "docs/evaluation.md", ROOT / "README.md")
RESULTS = ROOT / "benchmarks/results"
MARKED = re.compile(r"(<!-- rows (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
SCORE = re.compile(r"(<!-- score (\S+) (\S+) (.+?) -->).*?(<!-- /score -->)")
HEAD = (
    "| what | value | 95 % interval | bad end | good end | n | fields | weak |\n"
    "|---|---:|---|---:|---:|---:|---:|---|\n"
)


def table(view: SectionView) -> str:
    """A section's scores as Markdown; a section that was refused says why."""
    told = "".join(f"Not measured{f' ({name})' if name else ''}: {reason}\n\n" for name, reason in view.refused)
    return told + (HEAD + "".join(map(line, view.rows)) if view.rows else "")


def line(row: RowView) -> str:
    """One score."""
    interval = "-" if row.low is None else f"{shown(row.low)} to {shown(row.high)}"
    # What is low at best has its floor as the good end; a ratio to real has 1.
    bad, good = (row.ceiling, row.floor) if row.want == "low" else (row.floor, row.ceiling)
    value = f"{shown(row.value)} {row.unit}".strip()
    cells = (row.name, value, interval, shown(bad), "1" if row.want == "one" else shown(good))
    counts = ("-" if row.n is None else str(row.n), "-" if row.n_fields is None else str(row.n_fields))
    return "| " + " | ".join((*cells, *counts, row.weak)) + " |\n"


def score(view: SectionView, name: str) -> str:
    """One score with its interval.

    Raises:
        KeyError: the section has no score of that name.
    """
    found = {row.name: row for row in view.rows}[name]
    interval = "" if found.low is None else f" ({shown(found.low)} to {shown(found.high)})"
    return shown(found.value) + interval


def filled(page: str, results: Path) -> str:
    """The page with every marked table and score written anew."""
    named = {match[1] for match in re.finditer(r"<!-- (?:rows|score) (\S+) ", page)}
    views = {name: {v.name: v for v in views_of(json.loads((results / name).read_text()))} for name in named}
    page = MARKED.sub(lambda m: m[1] + table(views[m[2]][m[3]]) + m[4], page)
    return SCORE.sub(lambda m: m[1] + score(views[m[2]][m[3]], m[4]) + m[5], page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text(), RESULTS))

"""Fills the tables of ``docs/evaluation.md`` from the reports that ``msdm-train evaluate`` wrote.

A table stands between ``<!-- rows RESULT SECTION -->`` and ``<!-- end -->``, where RESULT names a file of
``benchmarks/results``. Prose around the markers is written by hand and stays.

    python tools/evaluation_page.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from msdm_train.evaluation.report import views_of
from msdm_train.evaluation.views import RowView, SectionView, shown

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/evaluation.md"
RESULTS = ROOT / "benchmarks/results"
MARKED = re.compile(r"(<!-- rows (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
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


def filled(page: str, results: Path) -> str:
    """The page with every marked table written anew."""
    reports = {name: json.loads((results / name).read_text()) for name in set(re.findall(r"<!-- rows (\S+) ", page))}

    def one(match: re.Match[str]) -> str:
        name, section = match[2], match[3]
        views = {view.name: view for view in views_of(reports[name])}
        return match[1] + table(views[section]) + match[4]

    return MARKED.sub(one, page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(), RESULTS))

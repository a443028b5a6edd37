"""A finished build as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msdm_engine.bundle.plan_spec import PlanSpec
from msdm_export.plans.job import Row

#: Layer types worth a column; the rest are shapes, constants and casts, which a plan fuses away.
COLUMNS = ("CONVOLUTION", "MATRIX_MULTIPLY", "NORMALIZATION", "REDUCE")
HEADERS = ("plan", "MiB", "s", "layers", *(name.lower().replace("_", " ") for name in COLUMNS))


def cells(name: str, spec: PlanSpec, *, kept: bool = False) -> list[str]:
    """Name, size, seconds, number of layers, and for each type of :data:`COLUMNS` how many of which precision."""
    layers = spec.build.get("layers", {})
    total = sum(sum(by.values()) for by in layers.values())
    seconds = f"{spec.build.get('seconds', 0):.1f}" + (" (kept)" if kept else "")
    by_type = [" ".join(f"{n} {dtype}" for dtype, n in layers.get(column, {}).items()) or "-" for column in COLUMNS]
    return [name, f"{spec.size / 2**20:.1f}", seconds, str(total), *by_type]


def table(rows: Sequence[Row]) -> str:
    """Aligned text, one plan a line."""
    lines = [list(HEADERS), *(cells(row.name, row.spec, kept=row.kept) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADERS))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown(rows: Iterable[Sequence[str]], headers: Sequence[str] = HEADERS) -> str:
    """The same as a Markdown table."""
    lines = [list(headers), ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

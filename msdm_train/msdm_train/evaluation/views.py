"""What the report shows of a section: its rows, further tables and plots, read from the section's own JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Deepest nesting that a table of numbers shows; deeper parts stay in report.json.
MAX_DEPTH = 4
MAX_TABLE_ROWS = 60


@dataclass(frozen=True)
class RowView:
    """A score as it is shown; see :class:`msdm_train.evaluation.rows.Row`."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    ceiling: float | None = None
    n: int | None = None
    n_fields: int | None = None
    unit: str = ""
    want: str = ""
    weak: str = ""
    protocol: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts and numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class SectionView:
    """One section of the report.

    Args:
        refused: why the section, or by name a part of it, was not measured.
        plots: path relative to the report folder and caption of each.
        notes: sentences above the table.
    """

    name: str
    title: str
    seconds: float
    rows: tuple[RowView, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[tuple[str, str], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())


def section_view(name: str, title: str, section: Mapping[str, Any]) -> SectionView:
    """Reads a section of ``report.json``."""
    if section["status"] != "done":
        return SectionView(name, title, section["seconds"], refused=(("", section["reason"]),))
    result = section["result"]
    shown = {"rows", "plots", "refused", "rule", "notes"}
    return SectionView(
        name,
        title,
        section["seconds"],
        rows=tuple(_row(row) for row in result.get("rows", ())),
        tables=tuple(_tables({key: value for key, value in result.items() if key not in shown})),
        plots=tuple((plot["path"], plot.get("caption", "")) for plot in result.get("plots", ())),
        refused=tuple((part["name"], part["reason"]) for part in result.get("refused", ())),
        notes=tuple(result.get("notes", ())),
    )


def _row(row: Mapping[str, Any]) -> RowView:
    keys = ("low", "high", "floor", "ceiling", "n", "n_fields", "want", "weak", "protocol")
    return RowView(
        row["name"], row["value"], unit=row.get("unit_of_value", ""), **{k: row[k] for k in keys if k in row}
    )


def _tables(result: Mapping[str, Any]) -> list[Table]:
    """Whatever else a section returned, flattened: one table of names and values for each of its parts."""
    tables, loose = [], []
    for name, value in result.items():
        if isinstance(value, Mapping):
            tables.append(Table(name, ("", "value"), tuple(_flat(value))[:MAX_TABLE_ROWS]))
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            head = tuple(dict.fromkeys(key for item in value for key in item))
            cells = tuple(tuple(item.get(key) for key in head) for item in value[:MAX_TABLE_ROWS])
            tables.append(Table(name, head, cells))
        else:
            loose.append((name, value))
    return [*([Table("", ("", "value"), tuple(loose))] if loose else []), *tables]


def _flat(value: Mapping[str, Any], before: str = "", depth: int = 1) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, item in value.items():
        name = f"{before}{key}"
        if isinstance(item, Mapping) and depth < MAX_DEPTH:
            found += _flat(item, f"{name} / ", depth + 1)
        elif not isinstance(item, Mapping):
            found.append((name, item))
    return found

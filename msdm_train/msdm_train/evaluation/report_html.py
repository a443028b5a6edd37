"""``report.html``: the report as one file that loads nothing from elsewhere, without any real tile."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from msdm_engine.errors import InputError
from msdm_train.evaluation.rows import RULE
from msdm_train.evaluation.statistics import EXPLORATORY_BELOW
from msdm_train.evaluation.views import RowView, SectionView, Table, shown

#: The range bar of a row.
BAR_PX, BAR_HEIGHT_PX, BAR_MARGIN_PX = 170, 22, 8


def page(report: Mapping[str, Any], views: Sequence[SectionView], out: Path, sheet_png: bytes) -> str:
    """The whole page.

    Args:
        out: folder that the plots' paths are relative to; only files of its folder ``plots`` are embedded.
        sheet_png: contact sheet of generated pairs.

    Raises:
        InputError: a plot is missing or lies elsewhere.
    """
    css = resources.files("msdm_train.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    bundle, data, protocol = report["bundle"], report["data"], report["protocol"]
    title = f"{bundle['name']} on {protocol['split']} of {data['name']}"
    parts = [
        f"<header><p class=kind>msdm evaluation</p><h1>{_e(title)}</h1>{_facts(report)}</header>",
        _overview(views),
        *(_section(view, out) for view in views),
        "<section><h2>Generated pairs</h2><p>Evenly spaced picks in the order of their windows, unfiltered; beside "
        f"them the outlines of their masks.</p>{_image('image/png', sheet_png, 'generated pairs')}</section>",
        f"<footer><p>All pictures on this page are generated. Data: {_e(data['name'])}, {_e(data['licence'])}. "
        f"{_e(data['source'])}</p></footer>",
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_e(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>\n{css}</style></head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _facts(report: Mapping[str, Any]) -> str:
    protocol, sampling = report["protocol"], report["protocol"]["generator"]["sampling"]
    small, few = protocol["fields_too_small"], len(protocol["fields"]) < EXPLORATORY_BELOW
    chosen_on = report["bundle"].get("sampling_chosen_on")
    facts = {
        "bundle": f"{report['bundle']['name']}, {report['bundle']['sha256'][:16]}",
        "sampling": f"{sampling['solver']}, {sampling['steps']} steps"
        + (", chosen on this very split: its scores are too good" if chosen_on == protocol["split"] else ""),
        "real": f"{protocol['real_windows']} disjoint windows of {protocol['side_px']} px, "
        f"{len(protocol['fields'])} fields of {protocol['split']}"
        + (", exploratory" if few else "")
        + (f"; {len(small)} fields are too small" if small else ""),
        "generated": f"{protocol['generated_pairs']} pairs under the conditions of these windows, unfiltered",
        "encoder": _identity(protocol["encoder"]),
        "evaluator": _identity(protocol["evaluator"]),
        "mode": "quick: few windows and resamplings" if protocol["quick"] else "full",
    }
    return "<dl>" + "".join(f"<div><dt>{_e(k)}</dt><dd>{_e(v)}</dd></div>" for k, v in facts.items()) + "</dl>"


def _identity(identity: Mapping[str, Any]) -> str:
    return ", ".join(str(value)[:60] for value in identity.values())


def _overview(views: Sequence[SectionView]) -> str:
    lines = []
    for view in views:
        weak = sum(bool(row.weak) for row in view.rows)
        whole = not view.rows and view.refused and not view.refused[0][0]
        state = "refused" if whole else f"{len(view.rows)} scores, {weak} weak"
        lines.append(
            f'<tr><td><a href="#{_e(view.name)}">{_e(view.title)}</a></td><td>{state}</td>'
            f"<td class=number>{view.seconds:.0f} s</td></tr>"
        )
    weakest = [
        f"<li><b>{_e(row.name)}</b>: {shown(row.value)} {_e(row.unit)} ({_e(row.weak)})</li>"
        for view in views
        for row in view.rows
        if row.weak
    ]
    told = f"<h3>Weak scores</h3><ul class=weak>{''.join(weakest)}</ul>" if weakest else "<p>No score is weak.</p>"
    return (
        "<section><h2>Overview</h2><table class=overview><tr><th>section</th><th>state</th><th class=number>took</th>"
        f"</tr>{''.join(lines)}</table>{told}<p class=rule>{_e(RULE)}</p></section>"
    )


def _section(view: SectionView, out: Path) -> str:
    parts = [f'<section id="{_e(view.name)}"><h2>{_e(view.title)}</h2>']
    parts += [f"<p>{_e(note)}</p>" for note in view.notes]
    for name, reason in view.refused:
        what, *more = reason.splitlines()
        told = "".join(f"<br>{_e(line.strip())}" for line in more)
        parts.append(f"<p class=refused><b>Refused{f', {_e(name)}' if name else ''}.</b> {_e(what)}{told}</p>")
    if view.rows:
        parts.append(_scores(view.rows))
    for path, caption in view.plots:
        picture = _image("image/png", _plot(out, path), caption)
        parts.append(f"<figure>{picture}<figcaption>{_e(caption)}</figcaption></figure>")
    parts += [_table(table) for table in view.tables]
    return "".join(parts) + "</section>"


def _scores(rows: Sequence[RowView]) -> str:
    head = "<tr><th>score</th><th class=number>value</th><th class=number>95 % interval</th><th class=number>floor</th>"
    head += "<th class=number>ceiling</th><th></th><th class=number>n</th><th class=number>fields</th></tr>"
    return f"<div class=wide><table class=scores>{head}{''.join(map(_score, rows))}</table></div>"


def _score(row: RowView) -> str:
    low, high = row.low, row.high
    interval = "none" if low is None or high is None else f"{shown(low)} to {shown(high)}"
    mark = f" <span class=mark>weak: {_e(row.weak)}</span>" if row.weak else ""
    unit = f" <small>{_e(row.unit)}</small>" if row.unit else ""
    cells = [
        f"<td><b>{_e(row.name)}</b>{mark}<div class=protocol>{_e(row.protocol)}</div></td>",
        *(
            f"<td class=number>{cell}</td>"
            for cell in (f"<b>{shown(row.value)}</b>{unit}", interval, shown(row.floor), shown(row.ceiling))
        ),
        f"<td>{_bar(row)}</td>",
        *(f"<td class=number>{shown(cell)}</td>" for cell in (row.n, row.n_fields)),
    ]
    return f"<tr{' class=isweak' if row.weak else ''}>{''.join(cells)}</tr>"


def _bar(row: RowView) -> str:
    """Floor and ceiling as ticks, the interval as a line, the value as a dot, on one scale."""
    known = [v for v in (row.value, row.low, row.high, row.floor, row.ceiling) if v is not None]
    if row.value is None or len(known) < 2 or min(known) == max(known):
        return ""
    least, most = min(known), max(known)

    def x(value: float) -> str:
        return f"{BAR_MARGIN_PX + (value - least) / (most - least) * (BAR_PX - 2 * BAR_MARGIN_PX):.1f}"

    middle = BAR_HEIGHT_PX // 2
    parts = [f"<line class=axis x1={BAR_MARGIN_PX} x2={BAR_PX - BAR_MARGIN_PX} y1={middle} y2={middle} />"]
    good = {"low": row.floor, "high": row.ceiling, "one": 1.0}.get(row.want)
    for end in (row.floor, row.ceiling):
        if end is not None:
            kind = "good" if end == good else "end"
            parts.append(f"<line class={kind} x1={x(end)} x2={x(end)} y1=3 y2={BAR_HEIGHT_PX - 3} />")
    if row.low is not None and row.high is not None:
        parts.append(f"<line class=interval x1={x(row.low)} x2={x(row.high)} y1={middle} y2={middle} />")
    parts.append(f"<circle cx={x(row.value)} cy={middle} r=4 />")
    return f'<svg width={BAR_PX} height={BAR_HEIGHT_PX} role="img" aria-label="range">{"".join(parts)}</svg>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{_e(name)}</th>" for name in table.head)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    title = f"<summary>{_e(table.title or 'further numbers')}</summary>"
    return f"<details>{title}<div class=wide><table><tr>{head}</tr>{body}</table></div></details>"


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return shown(value)
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return ", ".join(map(shown, value))
    return "-" if value is None else _e(str(value))


def _plot(out: Path, relative: str) -> bytes:
    path = (out / relative).resolve()
    if not path.is_relative_to((out / "plots").resolve()) or not path.is_file():
        raise InputError(
            f"plot {relative} is not in {out / 'plots'}", note="only plots are shown: real tiles stay in local"
        )
    return path.read_bytes()


def _image(kind: str, data: bytes, alt: str) -> str:
    return f'<img alt="{_e(alt)}" src="data:{kind};base64,{base64.b64encode(data).decode("ascii")}">'


def _e(text: object) -> str:
    return html.escape(str(text), quote=True)

"""``ranges.html``: the report as one file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msdm_calibration.ranges.document import OUTLIER, RangeReport
from msdm_calibration.ranges.findings import outliers_of
from msdm_calibration.ranges.plots import draw_plots
from msdm_calibration.ranges.summary import (
    conditions_table,
    findings_table,
    graphs_table,
    outliers_table,
    summary_of,
)
from msdm_engine.output.png import write_atomically

PAGE = "ranges.html"
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:13px;margin:1rem 0}td,th{border:1px solid #ccc;padding:.15rem .5rem}
th{text-align:left}img{max-width:100%}h2{margin-top:2.5rem}"""
_LIMITS = "What a rule is named for is kept float32 by `msdm-export precision` on any bundle."
_CAPTIONS = {
    "heat.png": "Layers of the denoiser in their order, noise levels from the first step to the last. Left: bits "
    "between the largest magnitude and 65,504; red is near overflow. Right: bits between the median and the largest "
    "magnitude of the layer's widest activation: what an integer with one scale spends before a typical value begins.",
    "headroom.png": "Layers with the least headroom.",
    "outliers.png": "What convolutions and matrix products read, with channels far above the median channel.",
}


def write_page(report: RangeReport, out: Path) -> Path:
    """Draws the plots and writes the page beside the report."""
    summary = summary_of(report)
    plots = draw_plots(report, outliers_of(report), out)
    run = summary["run"]
    sampling = run["sampling"]
    facts = (
        f"{run['windows']} real windows of {run['size_px']} px of {run['data']['name']} "
        f"({', '.join(run['splits'])}) and {run['bare']} pairs without conditions, {sampling['steps']} steps of "
        f"{sampling['solver']}, seed {run['seed']}."
    )
    rule = f"A channel is an outlier if its largest magnitude is more than {OUTLIER:g} times the median channel's."
    sections = [
        ("Graphs", "", graphs_table(summary)),
        (
            "Near float16's limits",
            "Tensors that only reductions read stay float32 on any bundle.",
            findings_table(summary),
        ),
        ("Outlier channels", rule, outliers_table(summary)),
        ("Conditions", "The smallest and the largest that was asked for.", conditions_table(summary)),
    ]
    parts = [f"<h1>Activation ranges of {_e(run['bundle'])}</h1><p>{_e(facts)}</p>"]
    parts += [f"<h2>{_e(title)}</h2><p>{_e(text)}</p>{_table(rows)}" for title, text, rows in sections]
    parts += [_figure(path) for path in plots]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Activation ranges of {_e(run["bundle"])}'
        f"</title><style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    write_atomically(out / PAGE, page.encode())
    return out / PAGE


def _table(rows: Sequence[str]) -> str:
    """HTML of a Markdown table."""
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows if not row.startswith("|---")]
    if len(cells) == 1:
        return "<p>None.</p>"
    lines = [f"<tr>{''.join(f'<{tag}>{_e(cell)}</{tag}>' for cell in row)}</tr>" for tag, row in _tagged(cells)]
    return f"<table>{''.join(lines)}</table>"


def _tagged(cells: Sequence[list[str]]) -> list[tuple[str, list[str]]]:
    return [("td" if i else "th", row) for i, row in enumerate(cells)]


def _figure(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = _e(_CAPTIONS[path.name])
    return f'<h2>{text}</h2><img alt="{text}" src="data:image/png;base64,{data}">'


def _e(value: Any) -> str:
    return html.escape(str(value))

"""Writes what an evaluation found: the page, the contact sheet, and apart from both what shows real tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.errors import OutputError
from msdm_engine.output.contact_sheet import ContactSheet
from msdm_engine.output.pair_set import NOTICE as SYNTHETIC
from msdm_engine.output.png import png_bytes, write_atomically
from msdm_train.compare import NOTICE as REAL_TILES
from msdm_train.evaluation.context import Context
from msdm_train.evaluation.generate import evenly
from msdm_train.evaluation.report_html import page
from msdm_train.evaluation.samples import Sample
from msdm_train.evaluation.sections import SECTIONS
from msdm_train.evaluation.views import SectionView, section_view, shown

SHEET_PAIRS, SHEET_COLUMNS, SHEET_PX = 24, 4, 128
LOCAL_WINDOWS = 24
GAP_PX = 4


def local_folder(out: Path) -> Path:
    """``OUT/local``, which keeps itself out of git: what shows real tiles goes there and nowhere else.

    Raises:
        OutputError: it cannot be made.
    """
    folder = out / "local"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror or error}") from error
    return folder


def views_of(report: Mapping[str, Any]) -> list[SectionView]:
    """The sections as they are shown."""
    return [
        section_view(name, SECTIONS[name].title if name in SECTIONS else name, section)
        for name, section in report["sections"].items()
    ]


def write_report(context: Context, report: Mapping[str, Any]) -> None:
    """Writes ``report.html`` and ``contact_sheet.png`` (generated pictures only), and ``local/real_and_generated.png``.

    Raises:
        OutputError: a file cannot be written.
        InputError: a section names a plot that is not there.
    """
    bundle = report["bundle"]
    about = {"Comment": SYNTHETIC, "Bundle": f"{bundle['name']} sha256:{bundle['sha256']}"}
    about["Data licence"] = report["data"]["licence"]
    sheet = png_bytes(contact_sheet(context.generated[: len(context.real)]), about)
    write_atomically(context.out / "contact_sheet.png", sheet)
    write_atomically(context.out / "report.html", page(report, views_of(report), context.out, sheet).encode())
    beside = png_bytes(real_and_generated(context), {"Comment": REAL_TILES})
    write_atomically(local_folder(context.out) / "real_and_generated.png", beside)


def contact_sheet(samples: Sequence[Sample]) -> np.ndarray:
    """[H, W, 3] uint8: evenly spaced pairs, each beside itself with the outlines of its mask."""
    sheet = ContactSheet(SHEET_PAIRS, SHEET_COLUMNS, SHEET_PX)
    for i in evenly(len(samples), SHEET_PAIRS):
        sheet.add(samples[i].image, samples[i].instances)
    return sheet.draw()


def real_and_generated(context: Context) -> np.ndarray:
    """[H, W, 3] uint8: real windows (upper rows) over the pictures of their conditions (lower rows), six a row."""
    picked = evenly(len(context.real), LOCAL_WINDOWS)
    side = context.side_px
    blank = np.full((side, side, 3), 255, np.uint8)
    lines = []
    for first in range(0, len(picked), 6):
        some = picked[first : first + 6]
        for pictures in ([context.real[i].image for i in some], [context.generated[i].image for i in some]):
            cells = [np.pad(p, ((0, 0), (0, GAP_PX), (0, 0)), constant_values=255) for p in pictures]
            cells += [np.pad(blank, ((0, 0), (0, GAP_PX), (0, 0)), constant_values=255)] * (
                min(6, len(picked)) - len(some)
            )
            lines.append(np.pad(np.concatenate(cells, 1), ((0, GAP_PX), (0, 0), (0, 0)), constant_values=255))
    return np.concatenate(lines)


def summary(report: Mapping[str, Any]) -> str:
    """The report in a dozen lines at most, weakest scores last."""
    bundle, protocol = report["bundle"], report["protocol"]
    lines = [
        f"{bundle['name']} {bundle['sha256'][:12]} on {protocol['split']} of {report['data']['name']}: "
        f"{protocol['real_windows']} windows of {len(protocol['fields'])} fields, "
        f"{protocol['generated_pairs']} pairs of {protocol['side_px']} px"
    ]
    views = views_of(report)
    for view in views:
        weak = sum(bool(row.weak) for row in view.rows)
        whole = not view.rows and view.refused and not view.refused[0][0]
        told = f"refused: {view.refused[0][1].splitlines()[0]}" if whole else f"{len(view.rows)} scores, {weak} weak"
        lines.append(f"{view.name:13s} {view.seconds:6.0f} s  {told}")
    weakest = [
        f"weak: {row.name}: {shown(row.value)} {row.unit}".rstrip() for view in views for row in view.rows if row.weak
    ]
    room = 12 - len(lines)
    return "\n".join(
        lines + (weakest if len(weakest) <= room else [*weakest[: room - 1], f"and {len(weakest) - room + 1} more"])
    )

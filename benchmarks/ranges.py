"""Activation ranges of a bundle, and a planted overflow: ``python -m benchmarks.ranges [BUNDLE] --data PACK``.

Measures as `msdm-calibrate ranges` does (default: the reference bundle, 200 windows, all steps), plants an overflow in
a copy of the bundle and measures that in short, writes ``benchmarks/results/ranges.json``, the tables of
``docs/calibration.md`` between their markers, and its pictures. With ``--store`` the bundle gets the ranges, and its
hash changes. Interrupted, the same command goes on. Nothing is written if the planted overflow is missed or the report
names it on the bundle itself.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from benchmarks.ranges_planted import EXPONENT, GROWN, plant
from benchmarks.timer import environment, write_json

from msdm_calibration.data import CalibrationData
from msdm_calibration.ranges.document import RangeReport
from msdm_calibration.ranges.findings import OVERFLOW, Finding, findings_of
from msdm_calibration.ranges.measure import measure
from msdm_calibration.ranges.page import write_page
from msdm_calibration.ranges.plots import PLOTS
from msdm_calibration.ranges.settings import RangeSettings
from msdm_calibration.ranges.store import store
from msdm_calibration.ranges.summary import (
    conditions_table,
    findings_table,
    graphs_table,
    outliers_table,
    summary_of,
)
from msdm_engine.bundle.reader import Bundle, reference_bundle
from msdm_engine.engine import Engine

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "ranges.json", ROOT / "docs" / "calibration.md"
IMAGES = ROOT / "docs" / "images" / "calibration"
PATH = click.Path(path_type=Path)
#: Findings and outliers in the docs.
ROWS = 12


def planted(bundle: Path, pack: Path, out: Path) -> dict[str, Any]:
    """Measures the bundle with an overflow: what the report says of it, and how far float32 pictures moved."""
    folder = out / "bundle"
    plant(Bundle.open(bundle), folder)
    pictures = []
    for one in (bundle, folder):
        with Engine.open(one, threads=1) as engine, CalibrationData(pack, engine.bundle.manifest.n_classes) as data:
            request = data.windows(1, 64)[0].request
            sampling = engine.bundle.manifest.sampling.changed(steps=4, batch=1)
            pictures += [pair.image.astype(int) for pair in engine.sample([request], sampling, critic=False)]
    report = measure(RangeSettings(folder, pack, out / "report", windows=2, size_px=64, steps=4, bare=0))
    found = [finding for finding in _without_mask(report) if finding.kind == OVERFLOW]
    return {
        "scale": f"2^{EXPONENT}",
        "planted_in": GROWN,
        "largest_difference_of_pictures": int(np.abs(pictures[0] - pictures[1]).max()),
        "named": sorted({finding.layer for finding in found if finding.graph == "conditioner"}),
        "findings": [finding.text() for finding in found],
    }


def _without_mask(report: RangeReport) -> list[Finding]:
    """Findings beside those of rules, and beside BERT's mask, which is the lowest float32."""
    lowest = float(np.finfo(np.float32).max) * 0.99
    return [finding for finding in findings_of(report) if not finding.rule and finding.value < lowest]


def with_tables(page: str, tables: dict[str, list[str]]) -> str:
    """The page with each table between its markers ``<!-- NAME -->`` and ``<!-- /NAME -->`` replaced."""
    for name, rows in tables.items():
        before, found, rest = page.partition(f"<!-- {name} -->")
        _, closed, after = rest.partition(f"<!-- /{name} -->")
        if not (found and closed):
            raise SystemExit(f"{PAGE} lacks the markers of the table '{name}'")
        page = before + found + "\n" + "\n".join(rows) + "\n" + closed + after
    return page


def run_text(document: dict[str, Any]) -> list[str]:
    """What was measured, in words."""
    run, sampling = document["run"], document["run"]["sampling"]
    return [
        f"Bundle {run['bundle']}: {run['windows']} windows of {run['size_px']} px of {run['data']['name']} "
        f"({', '.join(run['splits'])}), {run['bare']} pairs without conditions, {sampling['steps']} steps of "
        f"{sampling['solver']}; {document['values']:.3g} values in {document['cpu_seconds'] / 60:.1f} minutes of one "
        f"core."
    ]


def planted_text(document: dict[str, Any]) -> list[str]:
    """The planted overflow, in words."""
    one = document["planted"]
    named = ", ".join(f"`{name}`" for name in one["named"])
    return [
        f"`{one['planted_in']}` times {one['scale']}, the layers that read it divided by the same. Pictures in float32 "
        f"differ by {one['largest_difference_of_pictures']} of 255 at most, and the report names {named}:",
        "",
        "```",
        *one["findings"][:3],
        "```",
    ]


@click.command()
@click.argument("bundle", type=PATH, required=False)
@click.option("--data", "pack", type=PATH, required=True, help="packed data set")
@click.option("--windows", type=int, default=200, show_default=True)
@click.option("--out", type=PATH, default=Path("ranges-benchmark"), show_default=True, help="folder of the full report")
@click.option("--store", "stored", is_flag=True, help="record the ranges in the bundle, for `sample --check-ranges`")
def main(bundle: Path | None, pack: Path, windows: int, out: Path, stored: bool) -> None:
    """Measure, plant, then write JSON, page and pictures."""
    bundle = bundle or reference_bundle()
    out.mkdir(parents=True, exist_ok=True)
    seconds = out / "cpu_seconds"
    began = time.process_time()
    try:
        report = measure(RangeSettings(bundle, pack, out / "report", windows=windows), bar=True, say=click.echo)
    finally:  # of all runs, interrupted ones among them
        before = float(seconds.read_text()) if seconds.exists() else 0.0
        seconds.write_text(f"{before + time.process_time() - began:.1f}")
    write_page(report, out / "report")
    shutil.rmtree(out / "planted", ignore_errors=True)
    document = {**summary_of(report), "planted": planted(bundle, pack, out / "planted")}
    if document["planted"]["named"] != [GROWN] or any(finding.layer == GROWN for finding in _without_mask(report)):
        sys.exit(f"the planted overflow in {GROWN} is not told: {document['planted']['findings']}")
    document["values"] = sum(graph["values"] for graph in document["graphs"].values())
    document["cpu_seconds"] = float(seconds.read_text())
    document["environment"] = environment("numpy", "onnx", "onnxruntime", "opencv-python-headless")
    tables = {
        "ranges-run": run_text(document),
        "ranges-graphs": graphs_table(document),
        "ranges-findings": findings_table(document, ROWS),
        "ranges-outliers": outliers_table(document, ROWS),
        "ranges-planted": planted_text(document),
        "ranges-conditions": conditions_table(document),
    }
    page = with_tables(PAGE.read_text(), tables)
    IMAGES.mkdir(parents=True, exist_ok=True)
    for path in (out / "report" / PLOTS).glob("*.png"):
        shutil.copyfile(path, IMAGES / path.name)
    write_json(RESULT, document)
    PAGE.write_text(page)
    if stored:
        store(bundle, report)
    click.echo("\n".join(tables["ranges-graphs"]))


if __name__ == "__main__":
    main()

"""Bundles of ``benchmarks.quantization``: half, wholly quantised, and the largest sets of blocks within a budget."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from msdm_calibration.quantize.budget import Budget, Evaluation
from msdm_calibration.quantize.calibrate import Calibrated, calibrate
from msdm_calibration.quantize.front_plot import write_report
from msdm_calibration.quantize.grids import GRIDS
from msdm_calibration.quantize.sensitivity import sensitivity
from msdm_calibration.quantize.settings import QuantizeSettings
from msdm_calibration.quantize.variants import write
from msdm_engine.bundle.reader import Bundle
from msdm_export.precision.variants import add_precision

#: Windows of train on which blocks are scored.
SCORED = 2


@dataclass
class Work:
    """Bundles in a working folder, of one bundle alone.

    Args:
        told: name and hash of the bundle that was given.
        windows: of train, that scales are calibrated on.
        calibrated, reports: by grid.
    """

    folder: Path
    told: dict[str, str]
    windows: int
    calibrated: dict[str, Calibrated] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def plain(self) -> Path:
        """The bundle with float16 graphs beside its own."""
        return self.folder / "fp16"

    def whole(self, grid: str) -> Path:
        """All blocks quantised."""
        return self.folder / grid

    def chosen(self, grid: str) -> Path:
        """The largest set of blocks within the budget, and the precision map."""
        return self.folder / f"{grid}-chosen"


def say(text: str) -> None:
    """Progress."""
    click.echo(text, err=True)


def searched(bundle: Path, pack: Path, evaluator: Path, windows: int, budget: str, out: Path) -> Work:
    """Calibrates and searches for both grids; goes on with what is in ``out``.

    A search that ended is read from its report. Scales are always made again from the histograms that were kept: they
    are needed for the comparison, and equal to the bit.
    """
    opened = Bundle.open(bundle)
    work = Work(
        out / f"{opened.sha256[:12]}-{windows}", {"name": opened.manifest.name, "sha256": opened.sha256}, windows
    )
    if not work.plain.exists():
        say("adding fp16")
        add_precision(bundle, "fp16", out=work.plain, pack=pack)
    judge = Evaluation(pack, evaluator, work.folder / "evaluations")
    for name in GRIDS:
        say(f"calibrating {name}")
        settings = QuantizeSettings(work.plain, name, pack, work.folder / "state", windows=windows)
        work.calibrated[name] = calibrated = calibrate(settings, say)
        write(calibrated, "fp16", tuple(calibrated.choices), {}, work.whole(name))
        report = work.folder / f"{name}.json"
        wanted = Budget.parse(budget)
        found = json.loads(report.read_text()) if report.exists() else {}
        if found.get("budget") != wanted.to_json() or not work.chosen(name).exists():
            kept = work.folder / "state" / f"errors-{name}.json"
            found = sensitivity(
                calibrated, wanted, judge, work.chosen(name), rest="fp16", windows=SCORED, kept=kept, say=say
            )
            write_report(report, found)
        work.reports[name] = found
    return work

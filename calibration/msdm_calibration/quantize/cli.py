"""``msdm-calibrate quantize``, ``sensitivity`` and ``where``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--to", required=True, help="int8 or fp8")
@click.option("--data", type=PATH, required=True, help="packed data set whose train windows lend their conditions")
@click.option("--out", type=PATH, help="write a new bundle [default: add to BUNDLE]")
@click.option("--windows", type=int, default=32, show_default=True, help="real windows, each a whole trajectory")
@click.option("--size", "size_px", type=int, help="side of the windows in px [default: the bundle's own]")
@click.option("--steps", type=int, help="of the trajectories [default: the bundle's own]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="of windows and noise")
@click.option("--batch", type=int, default=2, show_default=True, help="pairs at once: what memory grows with")
@click.option(
    "--threads", type=int, default=1, show_default=True, help="CPU threads; scales are bit-equal for equal ones"
)
@click.option("--rest", help="precision of what is not quantised: fp16 or float32 [default: fp16 if BUNDLE has it]")
@click.option("--state", type=PATH, help="folder of an interrupted calibration [default: beside the bundle written]")
def quantize(bundle: Path, out: Path | None, state: Path | None, **options: Any) -> None:
    """Add BUNDLE's graphs in INT8 or FP8, with explicit quantise/dequantise nodes, calibrated along trajectories."""
    from msdm_calibration.quantize.report import lines
    from msdm_calibration.quantize.settings import QuantizeSettings
    from msdm_calibration.quantize.variants import quantize as run
    from msdm_engine.contract import DENOISER

    target = out or bundle
    state = state or target.with_name(f"{target.name}.calibration")
    settings = QuantizeSettings(bundle=bundle, state=state, **options)
    manifest = run(settings, out, say=lambda text: click.echo(text, err=True))
    click.echo("\n".join(lines(manifest.graphs[DENOISER].variants[settings.to])))
    click.echo(f"wrote {target}")


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--to", default="int8", show_default=True, help="int8 or fp8")
@click.option("--budget", required=True, help='what may be lost, as in "dice 0.5, wasserstein 3%"')
@click.option("--data", type=PATH, required=True, help="packed data set: train calibrates, val judges")
@click.option("--evaluator", type=PATH, required=True, help="folder of a segmenter, for `msdm-train evaluate`")
@click.option("--out", type=PATH, required=True, help="bundle to write, with the largest set within the budget")
@click.option("--windows", type=int, default=16, show_default=True, help="that scales are calibrated on")
@click.option("--scored", type=int, default=2, show_default=True, help="of them, that blocks are scored on")
@click.option("--size", "size_px", type=int, help="side of the windows in px [default: the bundle's own]")
@click.option("--rest", help="precision of what is not quantised [default: fp16 if BUNDLE has it]")
@click.option("--quick", is_flag=True, help="four windows of calibration, a quick evaluation: minutes")
@click.option("--report", type=PATH, help="JSON of the measurements; a plot beside it [default: OUT.sensitivity.json]")
def sensitivity(
    bundle: Path, budget: str, evaluator: Path, out: Path, quick: bool, scored: int, report: Path | None, **options: Any
) -> None:
    """Measure what each block costs, and quantise the largest set of BUNDLE's blocks within a budget."""
    from msdm_calibration.quantize.budget import Budget, Evaluation
    from msdm_calibration.quantize.calibrate import calibrate
    from msdm_calibration.quantize.front_plot import plot, write_report
    from msdm_calibration.quantize.sensitivity import sensitivity as run
    from msdm_calibration.quantize.settings import QuantizeSettings
    from msdm_calibration.quantize.variants import check_rest
    from msdm_engine.bundle.reader import Bundle

    allowed = Budget.parse(budget)
    check_rest(Bundle.open(bundle), options["rest"])
    if quick:
        options["windows"] = min(options["windows"], 4)
    work = out.with_name(f"{out.name}.calibration")
    settings = QuantizeSettings(bundle=bundle, state=work, **options)
    judge = Evaluation(settings.data, evaluator, work / "evaluations", quick)

    def say(text: str) -> None:
        click.echo(text, err=True)

    calibrated = calibrate(settings, say)
    kept = work / f"errors-{settings.to}.json"
    found = run(calibrated, allowed, judge, out, rest=settings.rest, windows=scored, kept=kept, say=say)
    report = report or out.with_name(f"{out.name}.sensitivity.json")
    write_report(report, found)
    plot(report.with_suffix(".png"), found)
    chosen = found["chosen"]
    click.echo(
        f"{len(chosen['blocks'])} blocks, {100 * chosen['share']:.1f} % of a step's matrix work, in {settings.to}"
    )
    click.echo(f"wrote {out}, {report} and {report.with_suffix('.png')}")


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--size", "size_px", type=int, help="side of the pictures in px [default: the bundle's own]")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="pictures at once")
def where(bundle: Path, size_px: int | None, batch: int) -> None:
    """Say where BUNDLE's INT8 and FP8 graphs run, and what each GPU generation can gain at most: an estimate."""
    from msdm_calibration.where import gain_lines, support_lines, works_of
    from msdm_engine.bundle.reader import Bundle

    works = works_of(Bundle.open(bundle), size_px, batch)
    click.echo("\n".join([*support_lines(), "", *gain_lines(works)]))

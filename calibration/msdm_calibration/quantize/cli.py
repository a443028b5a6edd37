"""``msdm-calibrate quantize``."""

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

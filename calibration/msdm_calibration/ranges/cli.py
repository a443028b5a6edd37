"""``msdm-calibrate ranges``."""

from __future__ import annotations

from pathlib import Path

import click

from msdm_calibration.data import SPLITS

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=FOLDER)
@click.option("--data", type=FOLDER, required=True, help="packed data set of `msdm-train prepare`")
@click.option("--out", type=FOLDER, default=Path("ranges"), show_default=True, help="folder of the report")
@click.option("--windows", type=int, default=200, show_default=True, help="real windows, spread over the fields")
@click.option("--size", "size_px", type=int, default=128, show_default=True, help="their side in px")
@click.option("--steps", type=int, help="denoising steps [default: the bundle's]")
@click.option("--seed", type=int, default=0, show_default=True, help="of the windows and of the noise")
@click.option(
    "--split", "splits", multiple=True, default=SPLITS, show_default=True,
    help="split to take windows of; may be given again",
)  # fmt: skip
@click.option("--bare", type=int, default=8, show_default=True, help="pairs without any condition after the windows")
@click.option("--batch", type=int, default=2, show_default=True, help="pairs at once; memory grows with it")
@click.option("--threads", type=int, default=1, show_default=True, help="CPU threads of a graph")
@click.option("--store/--no-store", default=False, help="record the calibrated ranges in BUNDLE's manifest")
@click.option("--quiet", is_flag=True, help="no progress bar")
def ranges(bundle: Path, data: Path, out: Path, store: bool, quiet: bool, **settings: object) -> None:
    """Measure every activation of BUNDLE's graphs on real conditions, at each noise level.

    Writes ranges.json, ranges.html and plots into --out. Interrupted, the same command goes on where it was.
    """
    from msdm_calibration.ranges.findings import findings_of
    from msdm_calibration.ranges.measure import measure
    from msdm_calibration.ranges.page import write_page
    from msdm_calibration.ranges.settings import RangeSettings
    from msdm_calibration.ranges.store import store as store_ranges

    asked = RangeSettings(bundle, data, out, **settings)  # type: ignore[arg-type]  # click checks their types
    report = measure(asked, bar=not quiet, say=click.echo)
    page = write_page(report, out)
    found = [finding for finding in findings_of(report) if not finding.rule]
    for finding in found[:20]:
        click.echo(finding.text())
    click.echo(f"{len(found)} activations that float16 does not hold, beside those that are float32 on any bundle")
    if store:
        store_ranges(bundle, report)
        click.echo(f"recorded in {bundle}")
    click.echo(f"wrote {page}")

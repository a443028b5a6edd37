"""``msdm-export verify``: the parity ladder of a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from msdm_engine.errors import NumericsError

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--against", "checkpoint", type=PATH, help="checkpoint [default: PyTorch with the bundle's own weights]")
@click.option("--data", "pack", type=PATH, help="packed data set whose val masks are the conditions")
@click.option("--steps", type=int, default=6, show_default=True, help="noise levels of the trajectories")
@click.option("--json", "report_file", type=PATH, help="write the report as JSON")
@click.option("--pictures", type=PATH, help="folder for fp16 pictures beside float32 ones")
@click.option("--quiet", is_flag=True, help="only the table")
def verify(
    bundle: Path,
    checkpoint: Path | None,
    pack: Path | None,
    steps: int,
    report_file: Path | None,
    pictures: Path | None,
    quiet: bool,
) -> None:
    """Compare BUNDLE's graphs in every precision with PyTorch: alone, and along whole trajectories.

    Exit code 7 if an output leaves its tolerance; the message names it, the noise level and the first layer.
    """
    from msdm_export.ladder.report import failures, table
    from msdm_export.ladder.verify import verify_bundle, write_pictures, write_report

    def report(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    if pictures is not None:
        click.echo(f"wrote {write_pictures(bundle, pictures, precision='fp16')}")
    document = verify_bundle(bundle, checkpoint=checkpoint, pack=pack, steps=steps, report=report)
    if report_file is not None:
        write_report(report_file, document)
    click.echo("\n".join(table(document)))
    failed = list(failures(document))
    if failed:
        raise NumericsError(
            failed[0],
            note="; ".join(failed[1:]) or "all other outputs are within their tolerances",
            hint="`msdm-export precision` decides by measured ranges what stays float32: give it --data, or use bf16",
        )

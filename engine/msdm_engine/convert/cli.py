"""``msdm-engine convert``."""

from __future__ import annotations

from pathlib import Path

import click

from msdm_engine.cli_errors import INTERRUPTED

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("folder", metavar="SET", type=PATH)
@click.option(
    "--to",
    "format_name",
    required=True,
    metavar="FORMAT",
    help="coco, qupath, hovernet, pannuke, conic, webdataset or imagefolder",
)
@click.option("--out", type=PATH, required=True, help="folder to write; must not exist")
@click.option(
    "--class",
    "nucleus_class",
    metavar="NAME",
    help="class of all nuclei [default: nucleus; pannuke and conic need one]",
)
@click.option("--quiet", is_flag=True, help="no progress bar, no summary")
@click.pass_context
def convert(
    context: click.Context, folder: Path, format_name: str, out: Path, nucleus_class: str | None, quiet: bool
) -> None:
    """Write a generated set in another format. The set is verified first, and stays as it is."""
    from msdm_engine.convert.job import convert_set

    try:
        done = convert_set(folder, format_name, out, nucleus_class=nucleus_class, progress=not quiet)
    except KeyboardInterrupt:
        click.echo("interrupted: nothing was written", err=True)
        context.exit(INTERRUPTED)
    if not quiet:
        click.echo(f"{done.pairs} pairs as {format_name}: {out}\nread with {done.read_with}")

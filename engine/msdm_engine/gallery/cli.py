"""``msdm-engine gallery``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), help="file to write [default: gallery.html in the set]")
@click.option("--first", type=int, help="show only the first pairs of the set")
@click.option("--quiet", is_flag=True, help="no progress bar, no summary")
def gallery(folder: Path, html: Path | None, first: int | None, quiet: bool) -> None:
    """Write the gallery of a generated set: one HTML file that any browser shows from disk."""
    from msdm_engine.gallery.build import write_gallery

    written = write_gallery(folder, html, first=first, progress=not quiet)
    if not quiet:
        click.echo(f"gallery {written} ({written.stat().st_size / 2**20:.1f} MiB): open it in a browser")

"""``msdm-engine merge``, and the options of ``msdm-engine sample`` that say where pairs go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


def output_options(default: str | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--format`` and how many pairs a format writes together.

    Args:
        default: of ``--format``; None: what the shards have.
    """
    told = f"folder, webdataset (tar files) or zarr [default: {default or 'that of the shards'}]"
    options = (
        click.option("--format", "format_name", default=default, help=told),
        click.option("--tar-pairs", type=int, default=256, show_default=True, help="pairs of a tar (webdataset)"),
        click.option("--chunk-pairs", type=int, default=1, show_default=True, help="pairs of a chunk (zarr)"),
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command()
@click.argument("shards", metavar="SHARD...", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="folder to write; must not exist or be empty")
@output_options(None)
@click.option("--resume", is_flag=True, help="complete an interrupted merge in --out")
@click.option("--quiet", is_flag=True, help="no progress bar, no summary")
def merge(
    shards: tuple[Path, ...],
    out: Path,
    format_name: str | None,
    tar_pairs: int,
    chunk_pairs: int,
    resume: bool,
    quiet: bool,
) -> None:
    """Join the shards of a set to the set that one run would have made, to the byte.

    With one whole set and --format, write it in that format. The shards are verified first, and stay as they are.
    """
    from msdm_engine.output.merge import merge_shards
    from msdm_engine.output.sink import OutputChoice

    output = OutputChoice(format_name, tar_pairs, chunk_pairs) if format_name else None
    count = merge_shards(shards, out, output=output, resume=resume, progress=not quiet)
    if not quiet:
        click.echo(f"{count} pairs of {len(shards)} shard(s): {out}")

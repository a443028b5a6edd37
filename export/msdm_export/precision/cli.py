"""``msdm-export precision``: typed graphs for a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from msdm_engine.errors import RequestError

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=FOLDER)
@click.option("--to", required=True, help="fp16 or bf16")
@click.option("--out", type=FOLDER, help="write a new bundle [default: add to BUNDLE]")
@click.option("--data", "pack", type=FOLDER, help="packed data set whose val masks ranges are measured on")
@click.option("--ranges", type=FOLDER, help="ranges.json of `msdm-calibrate ranges`: nothing is measured here")
def precision(bundle: Path, to: str, out: Path | None, pack: Path | None, ranges: Path | None) -> None:
    """Add BUNDLE's graphs in half precision, each tensor typed as it will run."""
    from msdm_export.precision.variants import add_precision

    if pack is not None and ranges is not None:
        raise RequestError("--data and --ranges both say where ranges come from", hint="leave one of them out")
    manifest = add_precision(bundle, to, out=out, pack=pack, ranges=ranges, report=click.echo)
    for graph, spec in manifest.graphs.items():
        variant = spec.variants[to]
        nodes, size = variant.details["nodes"], manifest.files[variant.file].size / 2**20
        click.echo(
            f"{graph:14s} {size:6.2f} MiB  opset {variant.opset}  "
            f"{nodes['float32_by_rule']} of {nodes['floating']} nodes stay float32, {nodes['casts']} casts"
        )
        for entry in variant.details["float32"]:
            click.echo(f"  {entry['rule']:10s} {len(entry['nodes']):4d}  {entry['reason']}")
    click.echo(f"wrote {out or bundle}")

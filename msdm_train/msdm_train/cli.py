"""``msdm-train``: prepare data and train."""

from __future__ import annotations

from pathlib import Path

import click

from msdm_engine.cli_errors import MsdmGroup

FOLDER = click.Path(path_type=Path)


@click.group(cls=MsdmGroup)
def main() -> None:
    """Prepare annotated tiles, train the generator, look at what it learnt."""


@main.command()
@click.argument("source", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="packed data set to write")
@click.option("--layout", type=click.Choice(["tiles", "bbbc038"]), default="tiles", help="how the source is laid out")
@click.option("--splits", type=FOLDER, help="CSV with the columns id, field, split (bbbc038 layout)")
@click.option("--name", default="", help="name of the data set")
@click.option("--licence", required=True, help="licence of the data, such as CC0-1.0; it travels with every pair")
@click.option("--source-text", default="", help="where the data comes from")
def prepare(
    source: Path, out: Path, layout: str, splits: Path | None, name: str, licence: str, source_text: str
) -> None:
    """Pack a folder of annotated tiles into one memory-mapped file."""
    from msdm_train.data.pack import write_pack
    from msdm_train.data.sources import open_source

    info = write_pack(open_source(source, layout, splits, name=name, licence=licence, source=source_text), out)
    for split in ("train", "val", "test"):
        fields = [field for field in info.fields if field.split == split]
        click.echo(f"{split:5s} {len(fields):4d} fields {sum(f.nuclei for f in fields):6d} nuclei")
    click.echo(f"wrote {out} ({out.stat().st_size / 2**20:.1f} MiB)")


@main.command()
@click.argument("pack", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="folder of the run; an interrupted run resumes here")
@click.option("--model", default="small", show_default=True, help="preset: tiny, small, base, large")
@click.option("--init", type=FOLDER, help="checkpoint folder to start from")
@click.option("--steps", type=int, required=True)
@click.option("--batch", type=int, default=16, show_default=True)
@click.option("--crop", "crop_px", type=int, default=64, show_default=True, help="side of the crops in pixels")
@click.option("--learning-rate", type=float, default=1.2e-3, show_default=True)
@click.option("--cooldown-share", type=float, default=0.15, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--save-every", type=int, default=500, show_default=True)
@click.option("--validate-every", type=int, default=500, show_default=True)
@click.option("--mixed-precision", default="no", show_default=True, help="no, bf16 or fp16")
@click.option("--workers", type=int, default=0, show_default=True, help="data loading processes")
def fit(pack: Path, out: Path, model: str, init: Path | None, **settings: int | float | str) -> None:
    """Train the generator on a packed data set."""
    from msdm_train.training.fit import FitConfig
    from msdm_train.training.fit import fit as run_fit

    click.echo(f"checkpoint: {run_fit(pack, out, FitConfig(**settings), model=model, init=init)}")  # type: ignore[arg-type]

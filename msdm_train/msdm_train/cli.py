"""``msdm-train``: prepare data and train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from msdm_engine.cli_errors import MsdmGroup
from msdm_train.data.reader import SPLITS
from msdm_train.evaluation.cli import evaluate, tune
from msdm_train.evaluation.usefulness.cli import usefulness
from msdm_train.segmentation.cli import segment
from msdm_train.training.cli import ema, fit, paraphrases

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
@click.argument("source", type=FOLDER)
@click.option("--data", "pack", type=FOLDER, required=True, help="packed data set")
@click.option("--out", type=FOLDER, required=True, help="checkpoint folder to write")
@click.option("--detail-width", type=click.IntRange(0), help="add a head that draws detail [default: as SOURCE]")
@click.option("--norm-below", is_flag=True, help="norm what comes from coarse levels that are silent")
def rebase(source: Path, pack: Path, out: Path, detail_width: int | None, norm_below: bool) -> None:
    """Move the weights of a checkpoint or bundle to the colour axes of a data set, to go on training from there."""
    from msdm_train.data.pack import Pack
    from msdm_train.training.rebase import rebase as run_rebase

    model = run_rebase(source, Pack(pack), out, detail_width, norm_below)
    click.echo(f"wrote {out}: spread along the colour axes {', '.join(f'{v:.3f}' for v in model.state_std[:3])}")


@main.command()
@click.option("--markdown", is_flag=True, help="as docs/presets.md")
def presets(markdown: bool) -> None:
    """List the model presets with their parameters and operations a denoising step."""
    from msdm_train.cost import preset_markdown, preset_text

    click.echo(preset_markdown() if markdown else preset_text())


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--data", "pack", type=FOLDER, required=True, help="packed data set")
@click.option("--split", type=click.Choice(SPLITS), default="val", show_default=True)
@click.option("--out", type=FOLDER, required=True, help="report folder; must not exist or be empty")
@click.option("--count", type=click.IntRange(1, 100), default=12, show_default=True, help="crops")
@click.option("--size", "side_px", type=click.IntRange(16), default=128, show_default=True, help="side of a crop in px")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--steps", type=int, help="denoising steps [default: the bundle's]")
@click.option("--solver", help="[default: the bundle's]")
@click.option("--batch", type=int, help="pairs at once [default: the bundle's]")
@click.option("--threads", type=int, default=0, help="CPU threads; 0: one for each core")
def compare(
    bundle: Path, pack: Path, split: str, out: Path, count: int, side_px: int, seed: int, threads: int, **sampling: Any
) -> None:
    """Write real crops beside pairs that BUNDLE generates from their masks. The report is for local eyes only."""
    from msdm_engine.engine import Engine
    from msdm_train.compare import NOTICE, check_free, real_crops, write_report
    from msdm_train.data.pack import Pack

    check_free(out)
    opened = Pack(pack)
    crops = real_crops(opened, split, count, side_px)
    with Engine.open(bundle, threads=threads) as engine:
        chosen = engine.bundle.manifest.sampling.changed(**sampling)
        facts = {
            "bundle": f"{engine.bundle.manifest.name} {engine.bundle.sha256}",
            "sampling": f"{chosen.solver}, {chosen.steps} steps, seed {seed}",
            "data": f"{opened.info.name}, split {split}",
            "data licence": opened.info.licence,
            "data source": opened.info.source,
            "conditions": "each pair has the mask, the colour and the description of its crop",
        }
        write_report(out, crops, lambda requests: engine.sample(requests, chosen), seed=seed, facts=facts)
    click.echo(f"wrote {out / 'compare.html'} and {out / 'compare.png'}")
    click.echo(NOTICE)


main.add_command(ema)
main.add_command(evaluate)
main.add_command(fit)
main.add_command(paraphrases)
main.add_command(segment)
main.add_command(tune)
main.add_command(usefulness)


if __name__ == "__main__":
    main()

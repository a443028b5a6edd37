"""``msdm-train segment``: train, score, use and export segmenters of nuclei."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from msdm_engine.errors import RequestError
from msdm_train.data.reader import SPLITS
from msdm_train.segmentation.config import Architecture, Augmentation

if TYPE_CHECKING:
    from msdm_train.data.pack import Pack
    from msdm_train.segmentation.sources import Source

FOLDER = click.Path(path_type=Path)


@click.group()
def segment() -> None:
    """Segmenters of nuclei: evaluator, critic, and what synthetic pairs are tried on."""


@segment.command()
@click.option("--real", type=FOLDER, help="packed data set; its split train is learnt from")
@click.option("--fields-fold", help="INDEX/OF: hold out this fold of the train fields, such as 0/4")
@click.option("--synthetic", type=FOLDER, help="folder with images/ and masks/, as `msdm-engine sample` writes it")
@click.option("--share", type=float, help="share of the crops that are synthetic, with both --real and --synthetic")
@click.option("--out", type=FOLDER, required=True, help="folder of the run; an interrupted run resumes here")
@click.option("--architecture", default="plain", show_default=True, help=" or ".join(get_args(Architecture)))
@click.option("--steps", type=int, default=500, show_default=True)
@click.option("--batch", type=int, default=8, show_default=True, help="crops a step")
@click.option("--crop", "crop_px", type=int, default=128, show_default=True, help="side of the crops in pixels")
@click.option("--learning-rate", type=float, default=2e-3, show_default=True)
@click.option("--augmentation", default="classical", show_default=True, help=" or ".join(get_args(Augmentation)))
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--save-every", type=int, default=200, show_default=True)
def train(
    real: Path | None,
    fields_fold: str | None,
    synthetic: Path | None,
    share: float | None,
    out: Path,
    **settings: Any,
) -> None:
    """Train a segmenter on real pictures, synthetic ones, or both in a stated ratio."""
    from msdm_train.segmentation.config import SegmenterConfig
    from msdm_train.segmentation.train import train_segmenter

    config = SegmenterConfig(**settings)
    source = _source(real, fields_fold, synthetic, share)
    click.echo(f"learning from {json.dumps(source.identity)}")
    click.echo(f"checkpoint: {train_segmenter(source, config, out)}")


def _source(real: Path | None, fold: str | None, synthetic: Path | None, share: float | None) -> Source:
    """What the options of ``train`` name.

    Raises:
        RequestError: none, or options that contradict each other.
    """
    from msdm_train.data.pack import Pack
    from msdm_train.segmentation.sources import Folder, Mixture, PackFields

    if real is None and synthetic is None:
        raise RequestError("nothing to learn from", hint="name --real PACK, --synthetic FOLDER, or both with --share")
    if (share is not None) != (real is not None and synthetic is not None):
        raise RequestError(
            "--share goes with both --real and --synthetic", note="the share of the crops that are synthetic"
        )
    if fold is not None and real is None:
        raise RequestError("--fields-fold goes with --real", hint="leave it out, or name the packed data set")
    pack = None if real is None else Pack(real)
    whole = None if pack is None else PackFields(pack, _fields(pack, fold)[0])
    made = None if synthetic is None else Folder(synthetic)
    if whole is not None and made is not None and share is not None:
        return Mixture([(whole, 1 - share), (made, share)])
    chosen = whole or made
    assert chosen is not None
    return chosen


def _fields(pack: Pack, fold: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Train fields to learn from, and those that are held out."""
    from msdm_train.segmentation.folds import Fold, split_by_fold

    fields = pack.split("train")
    return (tuple(f.id for f in fields), ()) if fold is None else split_by_fold(fields, Fold.parse(fold))


@segment.command()
@click.argument("checkpoint", type=FOLDER)
@click.argument("images", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="folder for the instance maps, 16-bit PNG")
def predict(checkpoint: Path, images: Path, out: Path) -> None:
    """Write the instance map of each picture in the folder IMAGES."""
    from msdm_train.segmentation.predict import Segmenter, predict_folder

    found = predict_folder(Segmenter.load(checkpoint), images, out)
    click.echo(f"wrote {found['pictures']} instance maps with {found['nuclei']} nuclei to {out}")


@segment.command()
@click.argument("checkpoint", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="ONNX file to write")
def export(checkpoint: Path, out: Path) -> None:
    """Write the segmenter as ONNX: pictures in [-1, 1] to foreground (2 p - 1), horizontal and vertical maps."""
    from msdm_train.segmentation.export import export_segmenter

    identity = export_segmenter(checkpoint, out)
    click.echo(f"wrote {out} ({out.stat().st_size / 2**20:.1f} MiB), weights {identity['sha256']}")


@segment.command()
@click.argument("checkpoint", type=FOLDER)
@click.option("--data", type=FOLDER, required=True, help="packed data set")
@click.option("--split", type=click.Choice(SPLITS), default="val", show_default=True)
@click.option("--fields-fold", help="INDEX/OF: score this fold of the train fields instead of a split")
@click.option("--out", type=FOLDER, help="JSON file for the scores")
def score(checkpoint: Path, data: Path, split: str, fields_fold: str | None, out: Path | None) -> None:
    """Score a segmenter on the regions of real fields that it has not learnt from."""
    from msdm_engine.output.png import write_atomically
    from msdm_train.data.pack import Pack
    from msdm_train.segmentation.predict import Segmenter
    from msdm_train.segmentation.scoring import score_fields

    pack = Pack(data)
    names = [f.id for f in pack.split(split)] if fields_fold is None else list(_fields(pack, fields_fold)[1])
    report = score_fields(Segmenter.load(checkpoint), pack, names)
    for where, scores in {**report["by_field"], "mean of pictures": report["mean"], "pooled": report["pooled"]}.items():
        click.echo(f"{where:18s} " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    if out is not None:
        write_atomically(out, (json.dumps(report, indent=1) + "\n").encode())

"""``msdm-train evaluate`` and ``msdm-train tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path)


@click.command()
@click.option("--bundle", type=FOLDER, required=True, help="bundle to evaluate")
@click.option("--data", type=FOLDER, required=True, help="packed data set")
@click.option("--split", type=click.Choice(["val", "test"]), default="val", show_default=True)
@click.option("--out", type=FOLDER, required=True, help="report folder; an interrupted evaluation resumes here")
@click.option("--quick", is_flag=True, help="few windows and resamplings: minutes")
@click.option("--size", "side_px", type=int, default=128, show_default=True, help="side of the pictures in px")
@click.option("--seeds", type=int, help="pairs for each real window [default: 2, with --quick 1]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="of everything that is drawn")
@click.option("--evaluator", type=FOLDER, help="folder of a segmenter of `msdm-train segment` that is not the critic")
@click.option("--encoder", default="lite0", show_default=True, help="of the embeddings")
@click.option("--usefulness", type=FOLDER, help="folder of a finished usefulness experiment")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0: one for each core")
@click.option("--precision", default="float32", show_default=True, help="of the graphs: float32, or one that was added")
@click.option("--section", "only", multiple=True, help="measure this section only; may be given again [default: all]")
@click.option("--test-log", type=FOLDER, help="with --split test: the log that gets a line, docs/test-runs.md")
@click.option("--again", default="", help="why a bundle is evaluated on test once more; it is logged")
@click.option("--summary", "tell", is_flag=True, help="print the report in a dozen lines")
def evaluate(test_log: Path | None, again: str, tell: bool, **options: Any) -> None:
    """Measure a bundle: is it real, is it right, does it help. Writes report.json and report.html."""
    from msdm_train.evaluation.encoder import open_encoder
    from msdm_train.evaluation.evaluate import evaluate as run_evaluation
    from msdm_train.evaluation.report import summary
    from msdm_train.evaluation.settings import EvaluationSettings

    settings = EvaluationSettings(**options)
    report = run_evaluation(
        settings, open_encoder(settings.encoder),
        test_log=test_log, again=again, say=click.echo,
    )  # fmt: skip
    if tell:
        click.echo(summary(report))
    click.echo(f"wrote {settings.out / 'report.html'} and report.json; real tiles are in {settings.out / 'local'} only")


@click.command()
@click.option("--bundle", type=FOLDER, required=True, help="bundle to tune")
@click.option("--data", type=FOLDER, required=True, help="packed data set; its split val decides")
@click.option("--out", type=FOLDER, required=True, help="folder of the run; an interrupted one resumes here")
@click.option("--quick", is_flag=True, help="few windows and settings: minutes")
@click.option("--size", "side_px", type=int, default=128, show_default=True, help="side of the pictures in px")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="of the noise")
@click.option("--evaluator", type=FOLDER, help="folder of a segmenter: fidelity then counts, too")
@click.option("--encoder", default="lite0", show_default=True, help="of the embeddings")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0: one for each core")
@click.option("--store", is_flag=True, help="make what was chosen the default of BUNDLE")
def tune(evaluator: Path | None, encoder: str, store: bool, **options: Any) -> None:
    """Choose solver, steps, guidance and noise range on val, by closeness to real pictures, mask fidelity and cost."""
    from msdm_engine.bundle.reader import Bundle
    from msdm_train.data.pack import Pack
    from msdm_train.evaluation.encoder import open_encoder
    from msdm_train.evaluation.networks import open_evaluator
    from msdm_train.evaluation.tuning.store import store_tuning
    from msdm_train.evaluation.tuning.tune import SPLIT, TuneSettings
    from msdm_train.evaluation.tuning.tune import tune as run_tuning

    settings = TuneSettings(**options)
    judge = None
    if evaluator is not None:
        judge = open_evaluator(evaluator, Pack(settings.data), SPLIT, Bundle.open(settings.bundle).manifest)
    tuning = run_tuning(settings, open_encoder(encoder), judge, say=click.echo)
    for name in ("start", "chosen"):
        told = tuning[name]
        click.echo(f"{name}: {told['text']}: distance {told['distance']:.4g}, {told['cost']} runs a pair")
    click.echo(f"wrote {settings.out / 'tuning.json'}")
    if store:
        stored = store_tuning(settings.bundle, tuning)
        click.echo(f"stored in {settings.bundle}, now {stored.sha256[:12]}")

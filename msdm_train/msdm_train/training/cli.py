"""The commands ``msdm-train fit``, ``ema`` and ``paraphrases``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("pack", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="folder of the run; an interrupted run resumes here")
@click.option("--recipe", type=FOLDER, help="YAML file with model and settings; options given here stand above it")
@click.option("--model", help="preset: tiny, mini, small, base, large [default: that of the checkpoint, else small]")
@click.option("--init", type=FOLDER, help="checkpoint or bundle to start from")
@click.option("--text-encoder", default="", help="pretrained BERT: a folder, or a name on the hub; frozen")
@click.option("--tune-text-encoder", is_flag=True, help="train the pretrained BERT too")
@click.option("--steps", type=int, help="optimizer steps of the run; required without --recipe")
@click.option("--batch", type=int, default=16, show_default=True, help="crops a step and process")
@click.option("--crop", "crop_px", type=int, default=64, show_default=True, help="side of the crops in pixels")
@click.option("--curriculum", help="CROP:BATCH:STEPS,...,CROP:BATCH, such as 64:16:2000,96:8:1750,128:5")
@click.option("--learning-rate", type=float, default=1.2e-3, show_default=True)
@click.option("--warmup-steps", type=int, default=200, show_default=True)
@click.option("--decay-after-steps", type=int, default=3000, show_default=True, help="the rate falls as 1/sqrt after")
@click.option("--cooldown-share", type=float, default=0.15, show_default=True)
@click.option("--noise-mean", type=float, default=-0.9, show_default=True, help="mean of ln(sigma)")
@click.option("--noise-std", type=float, default=1.4, show_default=True, help="standard deviation of ln(sigma)")
@click.option("--drop-morphology", type=float, default=0.15, show_default=True, help="share of crops without maps")
@click.option("--drop-colour", type=float, default=0.15, show_default=True, help="share of crops without colour")
@click.option("--drop-text", type=float, default=0.2, show_default=True, help="share of crops without metadata")
@click.option("--scale-probability", type=float, default=0.3, show_default=True, help="share of crops rescaled")
@click.option("--scale-max", type=float, default=1.2, show_default=True, help="largest factor of rescaling")
@click.option("--stain-probability", type=float, default=0.4, show_default=True, help="share of crops restained")
@click.option("--stain-strength", type=float, default=0.12, show_default=True, help="largest change of optical density")
@click.option("--ema-gamma", type=float, default=6.94, show_default=True, help="length of the average (EDM2)")
@click.option("--ema-also", type=float, multiple=True, help="further averages kept for `msdm-train ema`; repeatable")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--save-every", type=int, default=500, show_default=True)
@click.option("--validate-every", type=int, default=500, show_default=True)
@click.option("--score-every", type=int, default=0, show_default=True, help="sample and score val; 0: never")
@click.option("--score-windows", type=int, default=12, show_default=True)
@click.option("--evaluator", type=FOLDER, help="segmenter that scores: a folder of `msdm-train segment`")
@click.option("--encoder", default="lite0", show_default=True, help="encoder that scores, or none")
@click.option(
    "--spike-factor", type=float, default=3.0, show_default=True, help="stop at a loss that grew so; 0: never"
)
@click.option("--spike-window", type=int, default=50, show_default=True, help="steps of its running median")
@click.option("--mixed-precision", default="no", show_default=True, help="no, bf16 or fp16")
@click.option("--workers", type=int, default=0, show_default=True, help="data loading processes")
@click.option("--dry-run", is_flag=True, help="say what would be trained, memory and time, and write nothing")
@click.option("--probe/--no-probe", default=True, show_default=True, help="of a dry run: try steps to estimate time")
@click.pass_context
def fit(
    context: click.Context,
    pack: Path,
    out: Path,
    recipe: Path | None,
    model: str | None,
    init: Path | None,
    evaluator: Path | None,
    encoder: str,
    dry_run: bool,
    probe: bool,
    **options: Any,
) -> None:
    """Train the generator on a packed data set; several processes with `torchrun -m msdm_train.cli fit`."""
    from msdm_train.training.config import FitConfig
    from msdm_train.training.recipe import read_recipe

    config: FitConfig
    settings = _settings(context, options)
    if recipe is not None:
        read = read_recipe(recipe, settings)
        config, model = read.settings, model or (None if init else read.model)
    else:
        config = FitConfig.from_json(settings)
    if dry_run:
        from msdm_train.training.plan import plan

        click.echo(plan(pack, out, config, model=model, init=init, probe=probe))
        return
    from msdm_train.training.fit import fit as run_fit
    from msdm_train.training.score import open_judge

    judge = open_judge(evaluator, encoder) if evaluator is not None else None
    click.echo(f"checkpoint: {run_fit(pack, out, config, model=model, init=init, judge=judge)}")


def _settings(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given on the command line; those that were not are left to recipe and defaults."""
    from msdm_train.training.config import parse_curriculum

    given = {
        name: value for name, value in options.items() if context.get_parameter_source(name) != ParameterSource.DEFAULT
    }
    if "curriculum" in given:
        given["curriculum"], (given["crop_px"], given["batch"]) = parse_curriculum(given["curriculum"])
    return given


@click.command()
@click.argument("checkpoint", type=FOLDER)
@click.option("--data", "pack", type=FOLDER, help="measure each average on val")
@click.option("--choose", type=float, help="gamma of the average to take")
@click.option("--out", type=FOLDER, help="checkpoint folder to write with the chosen average")
def ema(checkpoint: Path, pack: Path | None, choose: float | None, out: Path | None) -> None:
    """List the averages in CHECKPOINT, measure them on val, or write a checkpoint with another one for the export."""
    from msdm_train.training.averages import choose_average, losses_of_averages

    if pack is not None:
        for gamma, losses in losses_of_averages(checkpoint, pack).items():
            click.echo(f"gamma {gamma:g}: " + ", ".join(f"{name} {value:.5f}" for name, value in losses.items()))
    if choose is not None:
        if out is None:
            raise click.UsageError("--choose needs --out")
        choose_average(checkpoint, choose, out)
        click.echo(f"wrote {out}")
    elif pack is None:
        from msdm_train.training.averages import gammas_of

        click.echo("\n".join(f"gamma {gamma:g}" for gamma in gammas_of(checkpoint)))


@click.command()
@click.argument("source", type=FOLDER)
@click.option("--data", "pack", type=FOLDER, required=True, help="packed data set; its train descriptions are used")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def paraphrases(source: Path, pack: Path, seed: int) -> None:
    """Measure whether paraphrases lie nearer than other tissues in the text encoder of SOURCE (JSON)."""
    import json

    from msdm_train.paraphrases import paraphrase_report

    click.echo(json.dumps(paraphrase_report(source, pack, seed), indent=1))

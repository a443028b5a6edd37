"""``msdm-train usefulness``: does adding synthetic columnar cells help?"""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("pack", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="folder of the experiment; an interrupted one goes on here")
@click.option(
    "--report", "only_report", is_flag=True, help="train nothing; aggregate what --out holds, finished or not"
)
@click.option("--generator", default="mini", show_default=True, help="preset of the generators; small takes hours for each")
@click.option("--generator-steps", type=int, help="[default: 2400 for mini, 8000 for small]")
@click.option("--pairs", type=int, default=96, show_default=True, help="in each synthetic set")
@click.option("--folds", type=int, default=4, show_default=True)
@click.option("--fractions", default="0.25,1", show_default=True, help="shares of the training fields, rising")
@click.option("--seeds", type=int, default=1, show_default=True, help="segmenters of each arm; more may be added later")
@click.option("--synthetic-share", type=float, default=0.25, show_default=True, help="of the crops, in mixed arms")
@click.option("--segmenter-steps", type=int, default=400, show_default=True, help="equal for all arms")
@click.option("--parts", type=int, help="train at most so many segmenters in this call")
@click.option("--limit-minutes", type=float, help="begin no segmenter after so many minutes")
def usefulness(
    pack: Path,
    out: Path,
    only_report: bool,
    generator: str,
    generator_steps: int | None,
    pairs: int,
    folds: int,
    fractions: str,
    seeds: int,
    synthetic_share: float,
    segmenter_steps: int,
    parts: int | None,
    limit_minutes: float | None,
) -> None:
    """Train segmenters with and without synthetic columnar cells, cross-validated over the fields of PACK.

    Hours of work in parts of a minute or two: stop it at any time and run it again. Writes report.json and a plot.
    """
    from msdm_train.evaluation.usefulness.report import REPORT_FILE, report_lines, write_report

    if not only_report:
        from msdm_train.evaluation.usefulness.config import Protocol, fractions_of, generator_config
        from msdm_train.evaluation.usefulness.run import Limits, run_experiment
        from msdm_train.segmentation.config import SegmenterConfig

        protocol = Protocol(
            folds,
            fractions_of(fractions),
            seeds,
            synthetic_share,
            generator_config(generator, steps=generator_steps, pairs=pairs),
            SegmenterConfig("plain", steps=segmenter_steps),
        )
        run_experiment(pack, out, protocol, Limits(parts, limit_minutes), click.echo)
    for line in report_lines(write_report(out)):
        click.echo(line)
    click.echo(f"wrote {out / REPORT_FILE}")

"""``msdm-export inspect``."""

from __future__ import annotations

from pathlib import Path

import click

from msdm_engine.errors import RequestError

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=FOLDER, required=False)
@click.option("--profile", help="SIZE:BATCH[:BRANCHES] that the cost is for [default: the bundle's own]")
@click.option("--commands", is_flag=True, help="also the polygraphy and trtexec commands that reproduce each plan")
def inspect(bundle: Path | None, profile: str | None, commands: bool) -> None:
    """Say what BUNDLE [default: the reference bundle] holds and costs, where it runs, and what is missing here."""
    from msdm_engine.bundle.reader import Bundle
    from msdm_engine.doctor.probe import probe_gpus
    from msdm_export.inspect.report import graph_lines, layer_lines, missing_lines, plan_lines
    from msdm_export.plans.profiles import parse_profiles

    opened = Bundle.open(bundle)
    sampling = opened.manifest.sampling
    asked, *more = parse_profiles([profile or f"{sampling.size_px}:{sampling.batch}"], opened.manifest.stride)
    if more:
        raise RequestError(f"profile '{profile}' is {1 + len(more)} shapes", note="the cost is that of one")
    click.echo(f"bundle {opened.manifest.name} ({opened.sha256[:12]}), verified; plans are verified when they are run")
    for lines in (graph_lines(opened, asked), layer_lines(opened, asked), plan_lines(opened, commands=commands)):
        click.echo("\n".join(lines) + "\n")
    click.echo("\n".join(missing_lines(opened, probe_gpus())))

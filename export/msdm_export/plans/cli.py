"""``msdm-export build``."""

from __future__ import annotations

from pathlib import Path

import click

from msdm_engine.bundle.plan_spec import PLAN_BACKENDS
from msdm_engine.errors import RequestError

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=FOLDER, required=False)
@click.option("--backend", type=click.Choice(list(PLAN_BACKENDS)), default="tensorrt-rtx", show_default=True)
@click.option("--target", "targets", multiple=True, help="compute capability, as in sm_89; more than once for more")
@click.option("--all-targets", is_flag=True, help="every target that the backend knows")
@click.option("--profile", "profiles", multiple=True, help="SIZE:BATCHES[:BRANCHES], as in 128:1,8,32 or 256:8:1,2")
@click.option("--precision", default="fp16", show_default=True, help="a precision that the bundle has its graphs in")
@click.option("--dynamic", is_flag=True, help="one plan for each profile's whole range [default: one for each shape]")
@click.option("--workspace-mib", type=int, help="largest scratch memory of a layer [default: TensorRT's]")
@click.option("--level", type=int, help="builder optimisation level, 0 to 5 [default: TensorRT's]")
@click.option("--strip", is_flag=True, help="leave the weights out, to be refitted when the plan is loaded")
@click.option("--timing-cache", type=FOLDER, help="file of measured tactics to read and write (TensorRT only)")
@click.option("--memory-mib", type=int, help="memory of the GPU: a profile that needs more is refused")
@click.option("--out", type=FOLDER, help="build in a copy of the bundle at this folder")
def build(
    bundle: Path | None,
    backend: str,
    targets: tuple[str, ...],
    all_targets: bool,
    profiles: tuple[str, ...],
    precision: str,
    dynamic: bool,
    workspace_mib: int | None,
    level: int | None,
    strip: bool,
    timing_cache: Path | None,
    memory_mib: int | None,
    out: Path | None,
) -> None:
    """Compile the graphs of BUNDLE [default: the reference bundle] into plans for GPUs.

    TensorRT for RTX builds for any of its targets on a machine without a GPU. Run the same command again: what is
    built from the same inputs is kept.
    """
    from msdm_export.plans.job import BuildRequest
    from msdm_export.plans.job import build as build_all
    from msdm_export.plans.options import BuildOptions
    from msdm_export.plans.table import table

    if bool(targets) == all_targets:
        raise RequestError(
            "both --target and --all-targets" if targets else "no target",
            note="name the GPUs' compute capabilities, as in --target sm_89, or take --all-targets",
            hint="`msdm-engine doctor` says which this machine has",
        )
    options = BuildOptions(level, workspace_mib, strip, dynamic, timing_cache)
    request = BuildRequest(bundle, backend, targets, profiles, precision, options, memory_mib, out)
    rows = build_all(request, report=lambda line: click.echo(line, err=True))
    click.echo(table(rows))
    built = sum(not row.kept for row in rows)
    click.echo(f"{out or bundle}: {built} plan(s) built, {len(rows) - built} there already")

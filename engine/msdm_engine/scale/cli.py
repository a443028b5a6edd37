"""``msdm-engine ray``."""

from __future__ import annotations

from pathlib import Path

import click

from msdm_engine.contract import FLOAT32
from msdm_engine.log import Log
from msdm_engine.output.cli import output_options

PATH = click.Path(path_type=Path)


@click.command("ray")
@click.argument("request_file", metavar="REQUEST.yaml", type=PATH)
@click.option("--out", type=PATH, required=True, help="folder to write; must not exist or be empty")
@click.option("--workers", type=int, default=2, show_default=True, help="actors, each with an engine of its own")
@click.option("--address", help="of a Ray cluster [default: a cluster of this machine alone]")
@click.option("--shards", type=int, default=0, help="parts of the set [default: four for each worker]")
@click.option("--bundle", type=PATH, help="bundle folder, seen by all machines [default: the reference bundle]")
@click.option("--backend", default="onnxruntime", show_default=True, help="as in `msdm-engine sample`")
@click.option("--threads", type=int, default=1, show_default=True, help="CPU threads of an actor")
@click.option("--gpus", type=float, default=0.0, show_default=True, help="GPUs of an actor; 0.5 shares one")
@click.option("--precision", default=FLOAT32, show_default=True, help="of the graphs")
@click.option("--batch", type=int, help="pairs at once [default: the bundle's]")
@click.option("--critic/--no-critic", default=True, show_default=True, help="score each pair with the bundle's critic")
@output_options("folder")
@click.option("--resume", is_flag=True, help="complete the interrupted job of --out")
@click.option("--quiet", is_flag=True, help="no summary")
@click.option("--verbose", is_flag=True, help="say which shards are done")
@click.option("--log-json", is_flag=True, help="messages as JSON lines on standard error")
def ray_command(
    request_file: Path,
    out: Path,
    workers: int,
    address: str | None,
    shards: int,
    bundle: Path | None,
    backend: str,
    threads: int,
    gpus: float,
    precision: str,
    batch: int | None,
    critic: bool,
    format_name: str,
    tar_pairs: int,
    chunk_pairs: int,
    resume: bool,
    quiet: bool,
    verbose: bool,
    log_json: bool,
) -> None:
    """Generate a set with an actor pool of Ray Data; the set is that of one run, to the byte.

    Shards are made in OUT.shards, beside the output, on storage that all machines see; a worker that dies is replaced.
    """
    context = click.get_current_context()
    context.find_root().obj = log = Log(quiet=quiet, verbose=verbose, as_json=log_json)
    from msdm_engine.output.sink import OutputChoice
    from msdm_engine.requests.file import load_request
    from msdm_engine.scale.ray_job import RayJob, run_ray

    job = RayJob(
        load_request(request_file),
        out.resolve().with_name(f"{out.name}.shards"),
        bundle=bundle.resolve() if bundle else None,
        backend=backend,
        threads=threads,
        precision=precision,
        batch=batch,
        critic=critic,
        output=OutputChoice(format_name, tar_pairs, chunk_pairs),
        workers=workers,
        shards=shards,
        gpus=gpus,
    )
    run_ray(job, out, address=address, resume=resume, log=log)

"""``msdm-engine``: generate pairs from a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from msdm_engine.bench.cli import bench
from msdm_engine.cli_errors import MsdmGroup
from msdm_engine.contract import FLOAT32
from msdm_engine.convert.cli import convert
from msdm_engine.demo import demo
from msdm_engine.doctor.cli import doctor
from msdm_engine.gallery.cli import gallery
from msdm_engine.layouts.cli import edit, layout
from msdm_engine.log import Log
from msdm_engine.output.cli import merge, output_options
from msdm_engine.scale.cli import ray_command

PATH = click.Path(path_type=Path)


@click.group(cls=MsdmGroup)
@click.version_option(package_name="msdm")
def main() -> None:
    """Generate pixel-precise pathology image-mask pairs.

    Exit codes: 0 done, 2 illegal request, 3 bundle, 4 input data, 5 output, 6 backend, 7 numerics, 8 device,
    9 memory of the device, 130 interrupted.
    """


@main.command()
@click.argument("request_file", metavar="[REQUEST.yaml]", type=PATH, required=False)
@click.option("--out", type=PATH, help="folder to write; must not exist or be empty")
@click.option("--masks", type=PATH, help="follow the instance maps of this folder (PNG, TIFF, NPY)")
@click.option("--layout", help="follow drawn layouts: columnar, round, spindle, gland")
@click.option("--invent", is_flag=True, help="let the model invent the layout; its mask is decoded")
@click.option("--count", type=int, help="number of pairs [default: one for each mask, else 16]")
@click.option("--size", "size_px", type=int, help="side of a pair in px (with --layout or --invent)")
@click.option("--area", "area_px", type=float, help="median nuclear area in px (with --layout)")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--preset", help="appearance of the training data; `msdm-engine show` lists them")
@click.option("--assay", default="", help="metadata: assay or stain")
@click.option("--indication", default="", help="metadata: organ or disease")
@click.option("--description", default="", help="metadata: free text on the appearance")
@click.option("--colour-from", type=PATH, help="take the colour of this picture")
@click.option("--colour-mask", type=PATH, help="instance map of that picture")
@click.option("--colour-jitter", type=float, default=0.0, help="move each mean colour by up to this (8-bit units)")
@click.option("--guide-text", type=float, help="guidance towards the text; 0 is none [default: the bundle's]")
@click.option("--guide-colour", type=float, help="guidance towards the colour; 0 is none [default: the bundle's]")
@click.option("--steps", type=int, help="denoising steps [default: the bundle's]")
@click.option("--solver", help="euler, dpmpp-2m, euler-ancestral or sde-dpmpp-2m [default: the bundle's]")
@click.option("--min-agreement", type=float, help="draw a pair again if the critic's Dice with its mask is below")
@click.option("--max-redraws", type=int, help="draws of a pair after the first (with --min-agreement) [default: 3]")
@click.option("--critic/--no-critic", default=True, show_default=True, help="score each pair with the bundle's critic")
@click.option("--root", type=PATH, help="folder that paths in the request file are relative to [default: its own]")
@click.option("--bundle", type=PATH, help="bundle folder [default: the reference bundle]")
@click.option(
    "--backend", default="onnxruntime", show_default=True,
    help="onnxruntime, or with a provider and its options: onnxruntime:cuda,device_id=1 (tensorrt, openvino, ...); "
    "tensorrt or tensorrt-rtx: the bundle's plans",
)  # fmt: skip
@click.option("--threads", type=int, default=0, help="CPU threads of a batch; 0: one. They decide the last bits")
@click.option(
    "--parallel", type=int, default=0, help="batches side by side on the CPU; 0: what the cores have room for"
)
@click.option("--precision", default=FLOAT32, show_default=True, help="of the graphs: float32, or one that was added")
@click.option("--batch", type=int, help="pairs at once [default: the bundle's]")
@output_options("folder")
@click.option("--shard", metavar="I/N", help="make part I of N (0/N to (N-1)/N); `msdm-engine merge` joins them")
@click.option("--resume", is_flag=True, help="complete the interrupted set in --out")
@click.option("--check-ranges", is_flag=True, help="warn of pairs outside the ranges that the bundle was calibrated on")
@click.option("--validate", is_flag=True, help="only check, and say what would be made and what it costs")
@click.option("--quiet", is_flag=True, help="no progress bar, no summary")
@click.option("--verbose", is_flag=True, help="say what is being done")
@click.option("--log-json", is_flag=True, help="messages as JSON lines on standard error")
def sample(
    request_file: Path | None,
    out: Path | None,
    bundle: Path | None,
    backend: str,
    threads: int,
    parallel: int,
    precision: str,
    batch: int | None,
    critic: bool,
    format_name: str,
    tar_pairs: int,
    chunk_pairs: int,
    shard: str | None,
    resume: bool,
    check_ranges: bool,
    validate: bool,
    root: Path | None,
    quiet: bool,
    verbose: bool,
    log_json: bool,
    **options: Any,
) -> None:
    """Generate pairs into a folder: images/, masks/ (16-bit labels), manifest.jsonl, contact_sheet.png.

    With --format, the pairs go into tar files or a Zarr store instead of the two folders.

    What to generate comes from a request file, or from exactly one of --masks, --layout, --invent.
    """
    context = click.get_current_context()
    context.find_root().obj = log = Log(quiet=quiet, verbose=verbose, as_json=log_json)
    from msdm_engine.bundle.describe import describe
    from msdm_engine.flags import refuse_flags_beside_file, refuse_root_without_file, request_from_flags
    from msdm_engine.output.job import generate
    from msdm_engine.output.shard import Shard
    from msdm_engine.output.sink import OutputChoice
    from msdm_engine.requests.file import load_request

    output = OutputChoice(format_name, tar_pairs, chunk_pairs)
    part = Shard.parse(shard) if shard is not None else None
    if request_file is not None:
        refuse_flags_beside_file(context, options)
        request = load_request(request_file, root=root)
    else:
        refuse_root_without_file(root)
        request = request_from_flags(options)
    if validate:
        click.echo(describe(request, bundle, batch, critic=critic, output=output, shard=part))
        return
    generate(
        request,
        out,
        bundle=bundle,
        backend=backend,
        threads=threads,
        parallel=parallel,
        precision=precision,
        batch=batch,
        critic=critic,
        resume=resume,
        output=output,
        shard=part,
        check_ranges=check_ranges,
        log=log,
    )


@main.command()
@click.option("--bundle", type=PATH, help="bundle folder [default: the reference bundle]")
def show(bundle: Path | None) -> None:
    """Verify a bundle and say what it holds."""
    from msdm_engine.bundle.describe import critic_text
    from msdm_engine.bundle.reader import Bundle

    opened = Bundle.open(bundle)
    manifest = opened.manifest
    click.echo(f"bundle {manifest.name} ({opened.sha256[:12]}), verified")
    click.echo(f"trained on {manifest.data['name']}, licence {manifest.data['licence']}")
    sampling = manifest.sampling
    click.echo(f"default: {sampling.solver}, {sampling.steps} steps, {sampling.size_px} px, batch {sampling.batch}")
    strengths = ", ".join(f"{k} {v:g}" for k, v in manifest.guidance.to_json().items() if v)
    click.echo(f"guidance: {strengths or 'none'}")
    for name, spec in manifest.graphs.items():
        also = "".join(f", {precision}" for precision in spec.variants)
        click.echo(f"graph  {name:14s} {manifest.files[spec.file].size / 2**20:7.2f} MiB  {FLOAT32}{also}")
    for name, plan in manifest.plans.items():
        click.echo(f"plan   {name:44s} {plan.size / 2**20:7.2f} MiB")
    click.echo(critic_text(manifest.critic))
    for name, preset in manifest.presets.items():
        click.echo(f"preset {name:24s} {preset.description}")


@main.command()
@click.argument("folder", type=PATH)
def verify(folder: Path) -> None:
    """Check every file of a generated set against its manifest."""
    from msdm_engine.errors import OutputError
    from msdm_engine.output.verify import verify_set

    found = verify_set(folder)
    for problem in found.problems[:20]:
        click.echo(problem)
    if found.problems:
        raise OutputError(
            f"{folder} is not whole: {found.whole} of {found.expected} pairs, {len(found.problems)} problem(s)",
            hint="complete it with the command that made it and --resume",
        )
    click.echo(f"{folder} is whole: {found.whole} pairs")


@main.command()
def schema() -> None:
    """Print the JSON schema of request files."""
    from importlib import resources

    click.echo(resources.files("msdm_engine").joinpath("request.schema.json").read_text().rstrip())


main.add_command(demo)
main.add_command(bench)
main.add_command(merge)
main.add_command(ray_command)
main.add_command(gallery)
main.add_command(convert)
main.add_command(layout)
main.add_command(edit)
main.add_command(doctor)

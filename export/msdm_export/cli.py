"""``msdm-export``: checkpoint -> bundle."""

from __future__ import annotations

import math
from pathlib import Path

import click

from msdm_engine.bundle.manifest import DEFAULT_SAMPLING, Manifest
from msdm_engine.cli_errors import MsdmGroup
from msdm_engine.doctor.cli import doctor
from msdm_export.inspect.cli import inspect
from msdm_export.ladder.cli import verify
from msdm_export.plans.cli import build
from msdm_export.precision.cli import precision

FOLDER = click.Path(path_type=Path)


@click.group(cls=MsdmGroup)
def main() -> None:
    """Turn checkpoints into bundles that the engine runs."""


@main.command()
@click.argument("checkpoint", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="bundle folder to write")
@click.option("--name", default="", help="name of the bundle [default: name of the folder]")
@click.option("--data", "pack", type=FOLDER, help="packed data set whose val masks parity is measured on")
@click.option("--card", type=FOLDER, help="model card (Markdown) to ship with the bundle")
@click.option(
    "--weights", type=click.Choice(["float16", "float32"]), default="float16", show_default=True,
    help="how large weights are stored; the arithmetic is float32 either way",
)  # fmt: skip
@click.option("--critic", type=FOLDER, help="segmenter (a folder of `msdm-train segment`) that scores generated pairs")
@click.option("--solver", default=DEFAULT_SAMPLING.solver, show_default=True, help="default of the bundle")
@click.option("--steps", type=int, default=DEFAULT_SAMPLING.steps, show_default=True, help="default of the bundle")
def onnx(
    checkpoint: Path,
    out: Path,
    name: str,
    pack: Path | None,
    card: Path | None,
    weights: str,
    critic: Path | None,
    solver: str,
    steps: int,
) -> None:
    """Export CHECKPOINT's graphs to ONNX and write a verified bundle."""
    from msdm_export.bundle_writer import export_bundle

    sampling = DEFAULT_SAMPLING.changed(solver=solver, steps=steps)
    manifest = export_bundle(
        checkpoint, out, name=name or out.name, half_storage=weights == "float16", pack=pack, card=card,
        sampling=sampling, critic=critic, report=click.echo,
    )  # fmt: skip
    _say(manifest, out)


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--from", "segmenter", type=FOLDER, required=True, help="folder that `msdm-train segment` wrote")
@click.option("--out", type=FOLDER, required=True, help="bundle folder to write; may be the same")
@click.option("--data", "pack", type=FOLDER, help="packed data set whose val tiles parity is measured on")
@click.option(
    "--weights", type=click.Choice(["float16", "float32"]), default="float16", show_default=True,
    help="how large weights are stored; the arithmetic is float32 either way",
)  # fmt: skip
def critic(bundle: Path, segmenter: Path, out: Path, pack: Path | None, weights: str) -> None:
    """Write BUNDLE with a critic: a segmenter that scores each generated pair, or another one than it has."""
    from msdm_export.bundle_writer import add_critic

    manifest = add_critic(bundle, segmenter, out, half_storage=weights == "float16", pack=pack)
    _say(manifest, out)


def _say(manifest: Manifest, out: Path) -> None:
    for graph, spec in manifest.graphs.items():
        size = manifest.files[spec.file].size / 2**20
        worst = max(spec.parity.get("outputs", {}).values(), default=math.nan)  # not measured
        click.echo(f"{graph:14s} {size:6.2f} MiB  largest difference from PyTorch {worst:.1e}")
    total = sum(entry.size for entry in manifest.files.values()) / 2**20
    click.echo(f"wrote {out} ({total:.1f} MiB)")


main.add_command(build)
main.add_command(inspect)
main.add_command(doctor)
main.add_command(precision)
main.add_command(verify)

"""``msdm-engine``: generate pairs from a bundle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from msdm_engine.cli_errors import MsdmGroup
from msdm_engine.errors import RequestError

PATH = click.Path(path_type=Path)


@click.group(cls=MsdmGroup)
@click.version_option(package_name="msdm")
def main() -> None:
    """Generate pixel-precise pathology image-mask pairs."""


@main.command()
@click.option("--out", type=PATH, required=True, help="folder to write; must not exist or be empty")
@click.option("--masks", type=PATH, help="follow the instance maps of this folder (PNG, TIFF, NPY)")
@click.option("--layout", help="follow drawn layouts: columnar, round, spindle, gland")
@click.option("--invent", is_flag=True, help="let the model invent the layout; its mask is decoded")
@click.option("--count", type=click.IntRange(1), help="number of pairs [default: one for each mask, else 16]")
@click.option("--size", "size_px", type=int, help="side of a pair in px (with --layout or --invent)")
@click.option("--area", "area_px", type=float, help="median nuclear area in px (with --layout)")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--preset", help="appearance of the training data; `msdm-engine show` lists them")
@click.option("--assay", default="", help="metadata: assay or stain")
@click.option("--indication", default="", help="metadata: organ or disease")
@click.option("--description", default="", help="metadata: free text on the appearance")
@click.option("--colour-from", type=PATH, help="take the colour of this picture")
@click.option("--colour-mask", type=PATH, help="instance map of that picture")
@click.option("--bundle", type=PATH, help="bundle folder [default: the reference bundle]")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--threads", type=int, default=0, help="CPU threads; 0: one for each core")
@click.option("--steps", type=int, help="denoising steps [default: the bundle's]")
@click.option("--solver", help="euler, dpmpp-2m or euler-ancestral [default: the bundle's]")
@click.option("--batch", type=int, help="pairs at once [default: the bundle's]")
@click.option("--quiet", is_flag=True, help="no progress bar")
def sample(out: Path, bundle: Path | None, backend: str, threads: int, quiet: bool, **options: Any) -> None:
    """Generate pairs into a folder: images/, masks/ (16-bit labels), manifest.jsonl, contact_sheet.png."""
    from tqdm import tqdm

    from msdm_engine.bundle import Bundle
    from msdm_engine.engine import Engine
    from msdm_engine.output import PairSet

    began = time.monotonic()
    opened = Bundle.open(bundle)
    requests, total, told = _requests(opened, options)
    with Engine.open(opened, backend=backend, threads=threads) as engine:
        sampling = engine.sampling(steps=options["steps"], solver=options["solver"], batch=options["batch"])
        header = _header(engine, asdict(sampling), told)
        bar = tqdm(total=total, unit="pair", disable=quiet)
        with PairSet(out, header) as pairs, bar:
            for pair in engine.sample(requests, sampling):
                pairs.add(pair)
                bar.update()
    seconds = time.monotonic() - began
    click.echo(f"{total} pairs in {seconds:.1f} s ({total / seconds:.2f} pairs/s): {out}")
    click.echo(f"look at {out / 'contact_sheet.png'}")


def _requests(bundle: Any, options: dict[str, Any]) -> tuple[Iterator[Any], int, dict[str, Any]]:
    """The pairs that the options ask for, their number, and the options as they go into ``set.json``."""
    from msdm_engine import compose
    from msdm_engine.conditions.metadata import Metadata

    masks, layout, invent = options["masks"], options["layout"], options["invent"]
    if sum((masks is not None, layout is not None, invent)) != 1:
        raise RequestError("the morphology is not clear", note="give exactly one of --masks, --layout, --invent")
    if masks is not None and (options["size_px"] or options["area_px"]):
        raise RequestError("--size and --area go with --layout", note="with --masks the masks decide")
    preset = options["preset"]
    if layout is not None:
        compose.check_layout(layout)
        preset = preset or compose.preset_for_layout(bundle.manifest, layout)
    look = compose.appearance(
        bundle.manifest,
        preset=preset,
        metadata=Metadata(options["assay"], options["indication"], options["description"]),
        colour_image=options["colour_from"],
        colour_mask=options["colour_mask"],
    )
    size, seed = options["size_px"] or bundle.manifest.sampling.size_px, options["seed"]
    count = options["count"]
    if masks is not None:
        requests = compose.pairs_from_masks(masks, count, seed, look)
        count = count or len(compose.mask_files(masks))
    elif layout is not None:
        requests = compose.pairs_from_layout(layout, count or 16, size, seed, look, area_px=options["area_px"])
    else:
        requests = compose.pairs_invented(count or 16, size, seed, look)
    told = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    told |= {"preset": preset, "masks": masks.name if masks else None}
    return requests, count or 16, told


def _header(engine: Any, sampling: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    from importlib.metadata import version

    from msdm_engine.output import NOTICE

    manifest = engine.bundle.manifest
    return {
        "notice": NOTICE,
        "bundle": {"name": manifest.name, "sha256": engine.bundle.sha256},
        "data": {key: manifest.data[key] for key in ("name", "licence", "source")},
        "engine": {"msdm": version("msdm"), **engine.backend.identity},
        "sampling": sampling,
        "request": told,
        "provenance": {
            "Software": f"msdm {version('msdm')}",
            "Comment": NOTICE,
            "Bundle": f"{manifest.name} {engine.bundle.sha256}",
            "Data licence": manifest.data["licence"],
        },
    }


@main.command()
@click.option("--bundle", type=PATH, help="bundle folder [default: the reference bundle]")
def show(bundle: Path | None) -> None:
    """Verify a bundle and say what it holds."""
    from msdm_engine.bundle import Bundle

    opened = Bundle.open(bundle)
    manifest = opened.manifest
    click.echo(f"bundle {manifest.name} ({opened.sha256[:12]}), verified")
    click.echo(f"trained on {manifest.data['name']}, licence {manifest.data['licence']}")
    sampling = manifest.sampling
    click.echo(f"default: {sampling.solver}, {sampling.steps} steps, {sampling.size_px} px, batch {sampling.batch}")
    for name, spec in manifest.graphs.items():
        click.echo(f"graph  {name:14s} {manifest.files[spec.file].size / 2**20:7.2f} MiB")
    for name, preset in manifest.presets.items():
        click.echo(f"preset {name:24s} {preset.description}")

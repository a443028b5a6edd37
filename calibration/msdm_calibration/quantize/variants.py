"""Quantised graphs in the bundle: the denoiser with Q/DQ, the other graphs as they are in the precision of the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from msdm_calibration.quantize.calibrate import Calibrated, Say, calibrate
from msdm_calibration.quantize.settings import QuantizeSettings
from msdm_calibration.quantize.targets import REASONS, plain_graph, share_below_half
from msdm_engine.bundle.folder import add_to_bundle, entry_of, hashed_name, with_plans, with_variants, write_new
from msdm_engine.bundle.manifest import GraphSpec, Manifest, Variant
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER, FLOAT32
from msdm_engine.errors import BundleError


def quantize(settings: QuantizeSettings, out: Path | None = None, say: Say = lambda _: None) -> Manifest:
    """Calibrates and adds the quantised graphs to the bundle, or writes them with it into a new one.

    Raises:
        BundleError: the bundle lacks the precision of the rest, or has nothing to quantise.
        MsdmError: of :func:`calibrate`, or the bundle cannot be written.
    """
    check_rest(Bundle.open(settings.bundle), settings.rest)  # before an hour of calibration
    calibrated = calibrate(settings, say)
    return write(calibrated, settings.rest, tuple(calibrated.choices), {}, out)


def check_rest(bundle: Bundle, rest: str | None) -> str:
    """The precision of the rest.

    Args:
        rest: None: ``fp16`` where all graphs have it, else ``float32``.

    Raises:
        BundleError: the bundle lacks what was asked for.
    """
    if rest is None:
        rest = "fp16" if all("fp16" in spec.variants for spec in bundle.manifest.graphs.values()) else FLOAT32
    bundle.in_precision(rest)
    return rest


def write(
    calibrated: Calibrated,
    rest: str | None,
    nodes: Collection[str],
    measured: Mapping[str, Mapping[str, Any]],
    out: Path | None,
) -> Manifest:
    """Writes the variants.

    Args:
        nodes: which of the targets are quantised.
        measured: block -> what a sensitivity measurement found, kept in the precision map.
        out: None: add to the bundle.

    Raises:
        BundleError: the bundle lacks the precision of the rest.
        OutputError: it cannot be written.
    """
    bundle = calibrated.subject.bundle
    rest = check_rest(bundle, rest)
    specs = bundle.in_precision(rest)
    data = bundle.contents[specs[DENOISER].file]
    base = plain_graph(data) if rest == FLOAT32 else onnx.load_from_string(data)
    model = calibrated.model(nodes, base)
    written = model.SerializeToString()
    name = calibrated.grid.name
    file = hashed_name(f"{DENOISER}.{name}", written, ".onnx")
    opset = model.opset_import[0].version
    variants = {graph: _variant(bundle, graph, spec, rest) for graph, spec in specs.items()}
    details = variants[DENOISER].details | details_of(calibrated, rest, nodes, measured)
    variants[DENOISER] = replace(variants[DENOISER], file=file, opset=opset, details=details)
    files = {file: written}

    def change(manifest: Manifest) -> Manifest:
        return with_variants(manifest, name, variants)

    if out is None:
        return add_to_bundle(bundle.folder, files, change)
    listed = bundle.manifest.files | {file: entry_of(written)}
    changed = change(replace(bundle.manifest, files=listed))
    kept = {name: data for name, data in (bundle.contents | files).items() if name in changed.files}
    write_new(out, changed, with_plans(kept, bundle, changed))
    return changed


def _variant(bundle: Bundle, graph: str, spec: GraphSpec | Variant, rest: str) -> Variant:
    """The graph in the precision of the rest, as a member of the quantised set."""
    source = bundle.manifest.files[bundle.manifest.graphs[graph].file].sha256
    if isinstance(spec, Variant):
        return replace(spec, details={**spec.details, "rest": rest, "quantized": []})
    opset = onnx.load_from_string(bundle.contents[spec.file]).opset_import[0].version
    return Variant(spec.file, spec.inputs, spec.outputs, source, opset, {"rest": rest, "quantized": []})


def details_of(
    calibrated: Calibrated, rest: str, nodes: Collection[str], measured: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the manifest says of the quantised denoiser; its precision map under ``blocks``."""
    subject, grid = calibrated.subject, calibrated.grid
    total = sum(subject.flops.values())
    kept: dict[str, list[str]] = {}
    for node, reason in subject.targets.kept.items():
        kept.setdefault(reason, []).append(node)
    blocks = {}
    for block, targets in subject.targets.blocks().items():
        inside = [target.node for target in targets if target.node in nodes]
        blocks[block] = {
            "precision": grid.name if len(inside) == len(targets) else rest if not inside else f"{grid.name}, {rest}",
            "share_of_matrix_work": round(sum(subject.flops[target.node] for target in targets) / total, 6),
            **measured.get(block, {}),
        }
    return {
        "rest": rest,
        "quantized": [_entry(calibrated, node) for node in calibrated.choices if node in nodes],
        "kept": [{"rule": rule, "reason": REASONS[rule], "nodes": names} for rule, names in kept.items()],
        "share_of_matrix_work": round(share_below_half(subject.flops, nodes), 6),
        "blocks": blocks,
        "calibrated_on": {
            "conditions": calibrated.source,
            "noise_levels": [round(float(sigma), 6) for sigma in subject.sigmas],
            "level_weights": [round(float(weight), 6) for weight in calibrated.level_weights],
        },
        "tools": {tool: version(tool) for tool in ("msdm", "onnx", "onnxruntime", "ml_dtypes")},
    }


def _entry(calibrated: Calibrated, node: str) -> dict[str, Any]:
    choice, target = calibrated.choices[node], calibrated.subject.by_node[node]
    recipe = choice.recipe
    return {
        "node": node,
        "layer": target.layer,
        "block": target.block,
        "scale": recipe.scale,
        "criterion": choice.criterion,
        "channels_moved": 0 if recipe.migration is None else int(np.count_nonzero(recipe.migration != 1)),
        "levels": None if recipe.levels is None else [float(factor) for factor in recipe.levels],
        "relative_error_of_output": round(choice.error, 6),
    }


def entries_of(variant: Variant) -> list[dict[str, Any]]:
    """The quantised nodes that a variant of the manifest lists.

    Raises:
        BundleError: it lists none: it is no quantised variant.
    """
    entries = variant.details.get("quantized")
    if not isinstance(entries, list):
        raise BundleError(f"the variant {variant.file} lists no quantised nodes", hint="msdm-calibrate quantize")
    return entries

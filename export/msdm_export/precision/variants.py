"""A bundle's graphs in another precision, added to it or written with it into a new bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, shape_inference, version_converter

from msdm_engine.bundle.folder import (
    add_to_bundle,
    check_may_change,
    entry_of,
    hashed_name,
    with_plans,
    with_variants,
    write_new,
)
from msdm_engine.bundle.manifest import Manifest, Variant
from msdm_engine.bundle.reader import Bundle
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.contract import CRITIC
from msdm_engine.errors import BundleError
from msdm_export.conditions import Conditions, Size
from msdm_export.onnx_export import tensor_specs
from msdm_export.precision.formats import Format, format_named
from msdm_export.precision.graph import Graph, float32_from_stored
from msdm_export.precision.measured import MeasuredRanges, ranges_from_report
from msdm_export.precision.ranges import HEADROOM, Range, measure_ranges, misfits
from msdm_export.precision.rewrite import typed
from msdm_export.precision.rules import Assignment, assign
from msdm_train.data.pack import Pack

#: Ranges are measured at two sizes, with all guidance branches and an empty text; the network is convolutional.
RANGE_SIZES = (Size(96, 128, 1, 1), Size(64, 64, 1, 3))
#: Rows of the trajectories: every noise level from the first to the last is within a factor of about two of one.
RANGE_STEPS = 12
#: The first opset whose convolutions take the format.
LEAST_OPSET = {"fp16": 1, "bf16": 22}


def conditions_of(bundle: Bundle, pack: Path | None) -> Conditions:
    """Real conditions for a bundle: ``val`` masks of a pack, or drawn layouts, with the bundle's presets."""
    manifest = bundle.manifest
    tokenizer = TextTokenizer(bundle.tokenizer, manifest.text_tokens)
    return Conditions(
        manifest.presets,
        tokenizer,
        manifest.state_channels,
        manifest.n_classes,
        Pack(pack) if pack else None,
        judged=CRITIC in manifest.graphs,
    )


def source_models(bundle: Bundle) -> dict[str, onnx.ModelProto]:
    """The bundle's float32 graphs with weights as float32.

    Raises:
        BundleError: a graph computes in half itself, so there is no float32 graph to start from.
    """
    models = {}
    for name, data in bundle.graphs.items():
        model = float32_from_stored(data)
        halves = {
            value.name
            for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
            if value.type.tensor_type.elem_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16)
        }
        if halves:
            raise BundleError(
                f"graph '{name}' of {bundle.folder} is not float32: {len(halves)} of its tensors are in half",
                note="a typed graph is made from the float32 graph that `msdm-export onnx` writes",
                hint="export the bundle again",
            )
        models[name] = model
    return models


def add_precision(
    folder: Path,
    to: str,
    *,
    out: Path | None = None,
    pack: Path | None = None,
    ranges: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Adds every graph of a bundle in another precision.

    Args:
        folder: the bundle; without ``out`` the graphs are added to it.
        to: ``fp16`` or ``bf16``.
        pack: data whose ``val`` masks the ranges are measured on; None: drawn layouts.
        ranges: report of `msdm-calibrate ranges` to take the ranges from; nothing is measured then.

    Raises:
        RequestError: an unknown precision, or the bundle that ships with msdm without ``out``.
        BundleError: no bundle, or one without float32 graphs.
        InputError: ``ranges`` is no report of this bundle.
        OutputError: it cannot be written.
    """
    half = format_named(to)
    bundle = Bundle.open(folder)
    if out is None:
        check_may_change(bundle.folder, "graphs in another precision")
    models = source_models(bundle)
    measured = (
        ranges_from_report(ranges, bundle, models, half) if ranges else _measured(bundle, models, half, pack, report)
    )
    handed = handed_on(models)
    files: dict[str, bytes] = {}
    variants: dict[str, Variant] = {}
    for name, model in models.items():
        report(f"typing {name}")
        assignment = assign(model, misfits(measured.ranges[name], half))
        proto = typed(_with_opset(model, half), half, assignment.float32, handed)
        data = proto.SerializeToString()
        file = hashed_name(f"{name}.{half.name}", data, ".onnx")
        files[file] = data
        details = _details(model, proto, assignment, measured.ranges[name])
        details["measured_on"] = {**measured.measured_on, "headroom": HEADROOM}
        variants[name] = Variant(
            file,
            tensor_specs(proto.graph.input),
            tensor_specs(proto.graph.output),
            bundle.manifest.files[bundle.manifest.graphs[name].file].sha256,
            proto.opset_import[0].version,
            details,
        )

    def change(manifest: Manifest) -> Manifest:
        return with_variants(manifest, half.name, variants)

    if out is None:
        return add_to_bundle(folder, files, change)
    listed = bundle.manifest.files | {name: entry_of(data) for name, data in files.items()}
    changed = change(replace(bundle.manifest, files=listed))
    kept = {name: data for name, data in (bundle.contents | files).items() if name in changed.files}
    write_new(out, changed, with_plans(kept, bundle, changed))
    return changed


def _measured(
    bundle: Bundle, models: dict[str, onnx.ModelProto], half: Format, pack: Path | None, report: Callable[[str], None]
) -> MeasuredRanges:
    conditions = conditions_of(bundle, pack)
    report(f"measuring ranges on {conditions.source}")
    table = bundle.manifest.sampling.changed(steps=RANGE_STEPS).table()
    measured_on = {
        "conditions": conditions.source,
        "cases": [str(size) for size in RANGE_SIZES],
        "noise_levels": [round(float(row[0]), 6) for row in table],
    }
    return MeasuredRanges(measure_ranges(models, half, conditions.cases(RANGE_SIZES), table), measured_on)


def handed_on(models: dict[str, onnx.ModelProto]) -> set[str]:
    """Floating-point tensors that one graph gives out and another takes in: the engine only passes them on."""
    given = {value.name for model in models.values() for value in model.graph.output}
    return given & {value.name for model in models.values() for value in model.graph.input}


def _with_opset(model: onnx.ModelProto, half: Format) -> onnx.ModelProto:
    if model.opset_import[0].version >= LEAST_OPSET[half.name]:
        return model
    converted = version_converter.convert_version(model, LEAST_OPSET[half.name])
    return shape_inference.infer_shapes(converted, check_type=True, strict_mode=True)


def _details(
    model: onnx.ModelProto, proto: onnx.ModelProto, assignment: Assignment, ranges: dict[str, Range]
) -> dict[str, Any]:
    floating = Graph(model).floating
    largest = max(((seen.largest, name) for name, seen in ranges.items()), default=(0.0, ""))
    return {
        "float32": assignment.exceptions(),
        "nodes": {
            "floating": len(floating),
            "float32_by_rule": len(assignment.float32),
            "casts": len(proto.graph.node) - len(model.graph.node),
        },
        "largest_value": {"tensor": largest[1], "value": largest[0]},
        "tools": {tool: version(tool) for tool in ("msdm", "onnx", "onnxruntime", "ml_dtypes")},
    }

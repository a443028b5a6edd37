"""Ranges from the report of `msdm-calibrate ranges`: real windows at every noise level, in place of measuring here.

The stages meet in the file. What is read of it: the hash of each graph, and of each activation its extrema, noise
levels and what float16 takes from it by underflow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from msdm_engine.bundle.reader import Bundle
from msdm_engine.errors import InputError
from msdm_export.precision.formats import Format
from msdm_export.precision.graph import Graph
from msdm_export.precision.ranges import Range

FORMAT, VERSION = "msdm-ranges", 1
_MAKE = "msdm-calibrate ranges BUNDLE --data D --out FOLDER"


@dataclass(frozen=True)
class MeasuredRanges:
    """A report, checked against a bundle.

    Args:
        ranges: of all float32 tensors of each graph, weights included.
        measured_on: for the manifest: the file's hash, data, windows and noise levels.
    """

    ranges: dict[str, dict[str, Range]]
    measured_on: dict[str, Any]


def ranges_from_report(
    path: Path, bundle: Bundle, models: Mapping[str, onnx.ModelProto], half: Format
) -> MeasuredRanges:
    """Reads the ranges of a bundle's graphs.

    A value that was not finite counts as the largest there is. The report's loss by underflow is float16's: bfloat16
    has float32's exponents, so nothing underflows there.

    Args:
        models: float32 graphs with inferred types, by name.

    Raises:
        InputError: no report, one of another version or of other graphs, or one that lacks a tensor.
    """
    try:
        data = path.read_bytes()
        raw = json.loads(data)
        if not isinstance(raw, dict) or (raw.get("format"), raw.get("version")) != (FORMAT, VERSION):
            raise ValueError(f"not format {FORMAT}, version {VERSION}")
        run, columns = raw["run"], raw["level_columns"]
        _check_graphs(path, bundle, run["graphs"])
        ranges = {
            name: _weights(model, half) | _activations(raw["graphs"][name], columns, half)
            for name, model in models.items()
        }
        measured_on = {
            "ranges_sha256": hashlib.sha256(data).hexdigest(),
            "conditions": f"{run['windows']} windows of {run['data']['name']}, {run['bare']} pairs without conditions",
            "sampling": run["sampling"],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a range report: {error!r}", hint=_MAKE) from error
    for name, model in models.items():
        _check_whole(path, name, Graph(model), ranges[name])
    return MeasuredRanges(ranges, measured_on)


def _check_graphs(path: Path, bundle: Bundle, measured: Mapping[str, str]) -> None:
    for name, spec in bundle.manifest.graphs.items():
        if measured.get(name) != bundle.manifest.files[spec.file].sha256:
            raise InputError(
                f"{path} was measured on another graph '{name}' than {bundle.folder} has",
                hint=f"measure again: {_MAKE}",
            )


def _weights(model: onnx.ModelProto, half: Format) -> dict[str, Range]:
    found: dict[str, Range] = {}
    for constant in Graph(model).constants.values():
        found.setdefault(constant.name, Range()).add(numpy_helper.to_array(constant), half, None)
    return found


def _activations(entries: list[dict[str, Any]], columns: list[str], half: Format) -> dict[str, Range]:
    found: dict[str, Range] = {}
    for entry in entries:
        levels = [dict(zip(columns, row, strict=True)) for row in entry["levels"]]
        if not levels:  # it only rearranges another, which stands before it
            found[entry["tensor"]] = found[entry["same_values_as"]]
            continue
        largest = [
            float("inf") if level["non_finite"] else max(abs(level["low"]), abs(level["high"])) for level in levels
        ]
        worst = max(range(len(levels)), key=largest.__getitem__)
        lost = max(level["underflow_loss"] for level in levels) if half.name == "fp16" else 0.0
        found[entry["tensor"]] = Range(largest[worst], lost, levels[worst]["sigma"])
    return found


def _check_whole(path: Path, name: str, graph: Graph, ranges: Mapping[str, Range]) -> None:
    """Every float32 tensor that depends on an input is in the report."""
    fixed = {initializer.name for initializer in graph.model.graph.initializer}
    for node in graph.model.graph.node:
        if all(not tensor or tensor in fixed for tensor in node.input):
            fixed.update(node.output)
    missing = [
        tensor
        for node in graph.floating
        for tensor in node.output
        if graph.is_float(tensor) and tensor not in ranges and tensor not in fixed
    ]
    if missing:
        raise InputError(f"{path} lacks {len(missing)} tensors of the graph '{name}', first {missing[0]}", hint=_MAKE)

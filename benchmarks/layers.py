"""Where a step's time goes, layer by layer, and how near it is to the core's peak: ``python -m benchmarks.layers``.

One thread, 128 px, ONNX Runtime in float32 and OpenVINO in float32 and bfloat16; with ``--quantised BUNDLE`` (the same
weights with INT8 graphs, by ``msdm-calibrate quantize``) OpenVINO in INT8 too. Steps are timed in turns, in seconds of
the processor, so that others on the machine lengthen them little; layers by the runtimes' own counters, the shortest of
some runs. Each step's output is compared with ONNX Runtime's before it is timed. Writes
``benchmarks/results/layers.json`` and the tables of docs/runtime.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from benchmarks.layer_peaks import convolutions, peak
from benchmarks.layer_profiles import REST, Arrays, Layer, by_kind, of_onnxruntime, of_openvino
from benchmarks.layer_trials import onnxruntime_trials, openvino_trials
from benchmarks.precision import with_tables
from benchmarks.timer import environment, measure, write_json

from msdm_engine import Bundle
from msdm_engine.backends import Backend, open_backend
from msdm_engine.backends.onnx_profile import nodes_of, products_of_event
from msdm_engine.backends.openvino import OpenVinoBackend
from msdm_engine.bench.setting import Setting
from msdm_engine.bench.worker import denoiser_inputs
from msdm_engine.contract import DENOISER, FLOAT32

RESULT = Path(__file__).parent / "results" / "layers.json"
PAGE = Path(__file__).parents[1] / "docs" / "runtime.md"
SIZE_PX = 128
#: Profiled runs for each timed one: a layer is as long as the shortest of its runs, which no other process disturbed.
PROFILED = 4
#: Layers with a smaller share of the time are in the sums only.
SHOWN = 0.002
CONVENTION = (
    "FLOPs: 2 for each multiply-add of convolutions and matrix products of one step without guidance; element-wise "
    "work counts as none; in INT8 the same number. Peak: the network's own convolutions, each alone in a graph, at the "
    "same precision, on the same thread, before and after the steps; the larger. Step: seconds of the processor."
)
#: Name -> (backend, precision of its graphs, arithmetic of its convolutions, largest relative error of D).
#: float32 differs by the order of sums; bfloat16 keeps 8 bits of each product's operands, and normal noise in place of
#: conditions is no input that the scales of INT8 were made for: only gross errors show there.
WAYS = {
    "ONNX Runtime, float32": ("onnxruntime", FLOAT32, "f32", 1e-4),
    "OpenVINO, float32": ("openvino:CPU,perf_count=YES", FLOAT32, "f32", 1e-4),
    "OpenVINO, bfloat16": ("openvino:CPU,inference_precision=bf16,perf_count=YES", FLOAT32, "bf16", 0.1),
    "OpenVINO, INT8 and bfloat16": ("openvino:CPU,inference_precision=bf16,perf_count=YES", "int8", "int8", 0.5),
}
#: Arithmetic of OpenVINO's trials.
TRIED = ("f32", "bf16")
PATH = click.Path(exists=True, file_okay=False, path_type=Path)


def batch_of(bundle: Bundle, quantised: Bundle | None, batch: int, repeats: int) -> dict[str, Any]:
    """Everything of one batch size."""
    inputs = denoiser_inputs(bundle, Setting(batch, SIZE_PX, 1, 1))
    nodes = nodes_of(bundle, DENOISER, inputs)
    products = {name: products_of_event(node) for name, node in nodes.items()}
    flops = sum(p.flops * times for found in products.values() for p, times in found.items())
    ways = {name: way for name, way in WAYS.items() if quantised or way[1] == FLOAT32}
    with ExitStack() as stack:
        backends: dict[str, Backend] = {}
        for name, (backend, precision, _, _) in ways.items():
            given = quantised if precision != FLOAT32 and quantised else bundle
            backends[name] = open_backend(backend, given, threads=1, precision=precision)
            stack.callback(backends[name].close)
        errors = checked(backends, inputs)
        peaks = [peaks_of(ways, nodes)]
        run: dict[str, Callable[[], object]] = {n: partial(b.run, DENOISER, inputs) for n, b in backends.items()}
        steps = measure(run, warmups=1, repeats=repeats, clock=time.process_time)
        peaks.append(peaks_of(ways, nodes))
        found: dict[str, Any] = {}
        for name, opened in backends.items():
            layers = (
                of_openvino(opened, products, inputs, PROFILED * repeats)
                if isinstance(opened, OpenVinoBackend)
                else of_onnxruntime(bundle, inputs, PROFILED * repeats)
            )
            arithmetic = ways[name][2]
            best = {key: max(each[arithmetic][key] for each in peaks) for key in peaks[0][arithmetic]}
            found[name] = described(layers, best, flops, steps[name].median_s)
            found[name] |= {"step": steps[name].as_dict(), "relative_error": errors[name]}
    trials = {f"OpenVINO, {arithmetic}": openvino_trials(bundle, inputs, arithmetic, repeats) for arithmetic in TRIED}
    trials["ONNX Runtime, f32"] = onnxruntime_trials(bundle, inputs, repeats)
    return {"step_flops": flops, "ways": found, "trials": trials}


def checked(backends: dict[str, Backend], inputs: Arrays) -> dict[str, float]:
    """Relative error of D against the first."""
    outputs = {name: backend.run(DENOISER, dict(inputs))["denoised"] for name, backend in backends.items()}
    reference = next(iter(outputs.values()))
    errors = {n: float(np.linalg.norm(d - reference) / np.linalg.norm(reference)) for n, d in outputs.items()}
    for name, error in errors.items():
        assert error <= WAYS[name][3], f"{name} computed something else: relative error {error:.3g}"
    return errors


def peaks_of(ways: dict[str, Any], nodes: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each arithmetic that is in use."""
    return {arithmetic: peak(convolutions(nodes), arithmetic) for arithmetic in {way[2]: None for way in ways.values()}}


def described(layers: list[Layer], best: dict[str, float], flops: int, step_s: float) -> dict[str, Any]:
    """Shares by kind, rates and fractions, and the layers themselves, the longest first."""
    kinds, total = by_kind(layers), sum(layer.seconds for layer in layers)
    convs = [layer for layer in layers if layer.kind == "convolution"]
    rate = sum(layer.flops for layer in convs) / sum(layer.seconds for layer in convs) / 1e9
    step_rate = flops / step_s / 1e9
    return {
        "peak": best,
        "convolutions_gflop_s": rate,
        "convolutions_of_peak": rate / best["own_shapes_gflop_s"],
        "step_gflop_s": step_rate,
        "step_of_peak": step_rate / best["own_shapes_gflop_s"],
        "step_of_fastest_shape": step_rate / best["best_shape_gflop_s"],
        "layers_s": total,
        "share": {kind: seconds / total for kind, seconds in kinds.items()},
        "layers": [
            {"name": o.name, "type": o.type, "kernel": o.kernel, "kind": o.kind, "us": round(o.seconds * 1e6, 1)}
            | ({"gflop_s": round(o.flops / o.seconds / 1e9, 1)} if o.flops and o.seconds else {})
            for o in sorted(layers, key=lambda layer: -layer.seconds)
            if o.seconds > SHOWN * total
        ],
    }


def kinds_table(document: dict[str, Any]) -> list[str]:
    """Milliseconds of a pair by kind of work, a column for each way; in a cell the batch sizes one after another."""
    batches = {int(batch): found["ways"] for batch, found in document["batches"].items()}
    names = list(next(iter(batches.values())))
    kinds = sorted(
        {kind for ways in batches.values() for way in ways.values() for kind in way["share"]},
        key=lambda kind: (
            kind == REST,
            -sum(ways[n]["share"].get(kind, 0) for ways in batches.values() for n in names),
        ),
    )
    rows = [
        f"| ms a pair, batch {' / '.join(map(str, batches))} | {' | '.join(names)} |",
        f"|---|{'---:|' * len(names)}",
    ]
    for kind in kinds:
        cells = [
            " / ".join(f"{1e3 * w[n]['share'].get(kind, 0) * w[n]['layers_s'] / b:.2f}" for b, w in batches.items())
            for n in names
        ]
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    steps = [" / ".join(f"{1e3 * w[n]['step']['median_s'] / b:.1f}" for b, w in batches.items()) for n in names]
    rows.append(f"| the step | {' | '.join(steps)} |")
    return rows


def peak_table(document: dict[str, Any]) -> list[str]:
    """Rates and fractions."""
    rows = [
        "| | batch | peak | fastest shape | convolutions | of peak | step | of peak | of fastest shape |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for batch, found in document["batches"].items():
        for name, way in found["ways"].items():
            rows.append(
                f"| {name} | {batch} | {way['peak']['own_shapes_gflop_s']:.0f} | "
                f"{way['peak']['best_shape_gflop_s']:.0f} | {way['convolutions_gflop_s']:.0f} | "
                f"{way['convolutions_of_peak']:.0%} | {way['step_gflop_s']:.0f} | {way['step_of_peak']:.0%} | "
                f"{way['step_of_fastest_shape']:.0%} |"
            )
    return rows


def trials_table(document: dict[str, Any]) -> list[str]:
    """Time of each trial over that of the exported graph, a column for each runtime and batch."""
    columns = [(key, b, t) for b, found in document["batches"].items() for key, t in found["trials"].items()]
    names = list(dict.fromkeys(name for _, _, trials in columns for name in trials))
    rows = [
        f"| | {' | '.join(f'{key}, batch {batch}' for key, batch, _ in columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for name in names[1:]:
        cells = [f"{trials[name]:.3f}" if name in trials else "-" for _, _, trials in columns]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


@click.command()
@click.argument("bundle", type=PATH, required=False)
@click.option("--quantised", type=PATH, help="the same weights with INT8 graphs")
@click.option("--repeats", type=int, default=25, show_default=True)
def main(bundle: Path | None, quantised: Path | None, repeats: int) -> None:
    """Measure, then write JSON and page."""
    opened = Bundle.open(bundle)
    codes = Bundle.open(quantised) if quantised else None
    document: dict[str, Any] = {
        "what": f"one denoiser step on one thread, {SIZE_PX} px, layer by layer",
        "convention": CONVENTION,
        "bundle": {"name": opened.manifest.name, "sha256": opened.sha256},
        "quantised": codes.sha256 if codes else None,
        "batches": {str(batch): batch_of(opened, codes, batch, repeats) for batch in (1, 4)},
        "environment": environment("numpy", "onnxruntime", "openvino"),
    }
    tables = {"layers by kind": kinds_table(document), "peak": peak_table(document), "trials": trials_table(document)}
    page = with_tables(PAGE.read_text(encoding="utf-8"), tables)
    write_json(RESULT, document)
    PAGE.write_text(page, encoding="utf-8")
    click.echo("\n\n".join("\n".join(rows) for rows in tables.values()))


if __name__ == "__main__":
    main()

"""The lines of ``msdm-export inspect``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx

from msdm_engine.bundle.plan_spec import PLAN_BACKENDS
from msdm_engine.bundle.plans import build_command, is_stale
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import FLOAT32
from msdm_engine.doctor.probe import Probe
from msdm_export.inspect.commands import polygraphy_command, trtexec_command
from msdm_export.plans.cost import Cost, cost_of
from msdm_export.plans.profiles import Profile, input_shapes
from msdm_export.plans.shapes import tensor_shapes
from msdm_export.plans.source import Source, fixed_shapes, source_of
from msdm_export.plans.table import cells, markdown
from msdm_export.plans.targets import backend_of

GRAPH_HEADERS = ("graph", "precision", "parameters", "GFLOP", "weights MiB", "tensors MiB", "activations MiB")
MATRIX_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def precisions_of(bundle: Bundle) -> list[str]:
    """``float32``, and what every graph has beside it."""
    shared = [set(spec.variants) for spec in bundle.manifest.graphs.values()]
    return [FLOAT32, *sorted(set.intersection(*shared))]


def costs(bundle: Bundle, profile: Profile) -> Iterator[tuple[Source, Cost]]:
    """Cost of each graph in each precision at the profile's largest shape."""
    for precision in precisions_of(bundle):
        for graph in bundle.manifest.graphs:
            source = source_of(bundle, graph, precision)
            ranges = profile.dimensions(graph, source.spec, bundle.manifest.stride)
            largest = {name: high for name, (_, _, high) in ranges.items()}
            yield source, cost_of(fixed_shapes(source.data, input_shapes(graph, source.spec, largest)))


def graph_lines(bundle: Bundle, profile: Profile) -> Iterator[str]:
    """Cost of each graph, and what a batch holds on the device."""
    yield f"graphs at {profile}"
    rows, totals = [], Counter[str]()
    for source, cost in costs(bundle, profile):
        totals[source.precision] += cost.device_bytes
        mib = (f"{value / 2**20:.1f}" for value in (cost.weight_bytes, cost.io_bytes, cost.activation_bytes))
        rows.append([source.graph, source.precision, f"{cost.parameters:,}", f"{cost.flops / 1e9:.2f}", *mib])
    yield markdown(rows, GRAPH_HEADERS)
    for precision, needed in totals.items():
        yield f"device memory in {precision}: about {needed / 2**20:.0f} MiB for a batch, all graphs held at once"
    yield "FLOP: 2 for each multiply-accumulate of Conv, MatMul and Gemm; nothing else is counted"
    yield "activations: unfused, nodes one after another; a plan fuses and needs less"


def layer_lines(bundle: Bundle, profile: Profile) -> Iterator[str]:
    """How many nodes of each kind of work make their output in which type."""
    yield "precision by layer (nodes, by the type of their output)"
    for precision in precisions_of(bundle):
        for graph in bundle.manifest.graphs:
            source = source_of(bundle, graph, precision)
            ranges = profile.dimensions(graph, source.spec, bundle.manifest.stride)
            shapes = input_shapes(graph, source.spec, {name: low for name, (low, _, _) in ranges.items()})
            model = onnx.load_from_string(fixed_shapes(source.data, shapes))
            known = tensor_shapes(model)
            found: Counter[tuple[str, str]] = Counter()
            for node in model.graph.node:
                kind = onnx.TensorProto.DataType.Name(known[node.output[0]][0]).lower()
                if kind in ("float", "float16", "bfloat16"):
                    found["matrix work" if node.op_type in MATRIX_OPS else "other", kind] += 1
            shown = ", ".join(f"{work} {count} {kind}" for (work, kind), count in sorted(found.items()))
            kept = f"; kept in float32 by rule: {len(source.kept)}" if source.kept else ""
            yield f"  {graph:14s} {precision:8s} {shown}{kept}"


def plan_lines(bundle: Bundle, *, commands: bool) -> Iterator[str]:
    """The plans, where each runs, and the commands that reproduce them."""
    if not bundle.manifest.plans:
        yield "plans: none"
        return
    yield "plans"
    for name, plan in bundle.manifest.plans.items():
        stale = is_stale(bundle, plan)
        shape = "one shape" if plan.static else "a range of shapes"
        line = f"  {name}: {plan.target} with {PLAN_BACKENDS[plan.backend]} {plan.version}, {shape}"
        yield f"{line}, STALE: the graph has changed since" if stale else line
        if commands and not stale:
            yield f"    {polygraphy_command(bundle, plan)}"
            yield f"    {trtexec_command(bundle, plan)}"
    if commands:
        yield "  (run in the bundle's folder; neither tool forbids a plan to allocate, as msdm does for CUDA graphs)"
    yield markdown(cells(name, plan) for name, plan in bundle.manifest.plans.items())


def missing_lines(bundle: Bundle, probe: Probe) -> Iterator[str]:
    """What this machine's GPUs lack, with the command that builds it."""
    if not probe.gpus:
        yield f"this machine has no GPU ({probe.problem}); plans for RTX GPUs can be built on it, and run elsewhere"
    for gpu in probe.gpus:
        fresh = (plan for plan in bundle.manifest.plans.values() if not is_stale(bundle, plan))
        plans = [plan for plan in fresh if plan.target == gpu.target]
        lacking = sorted(set(bundle.manifest.graphs) - {plan.graph for plan in plans})
        if not lacking:
            yield f"{gpu.name} ({gpu.target}): every graph has a plan"
            continue
        precision = "fp16" if "fp16" in precisions_of(bundle) else FLOAT32
        yield f"{gpu.name} ({gpu.target}): no plan of {', '.join(lacking)}"
        yield f"  {build_command(bundle, backend_of(gpu.target), gpu.target, precision)}"

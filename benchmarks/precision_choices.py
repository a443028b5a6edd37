"""What decides how FP16 graphs are written: ``python -m benchmarks.precision_choices [BUNDLE]``.

Three ways to type the denoiser, each parsed and built by TensorRT for RTX (no GPU needed): as `msdm-export precision`
writes it, with softmax in float32, and with the channel norms as RMSNormalization between transposes. Then every graph
in opsets 20 to 24. Writes ``benchmarks/results/precision_choices.json``; capability 8.9, 128 px, batch 1.
"""

from __future__ import annotations

import collections
import re
from pathlib import Path
from typing import Any

import click
import onnx
import tensorrt_rtx as trt
from benchmarks.timer import environment, write_json
from onnx import helper, numpy_helper, shape_inference, version_converter

from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER
from msdm_export.precision.formats import FORMATS
from msdm_export.precision.graph import Graph
from msdm_export.precision.rewrite import typed
from msdm_export.precision.rules import assign
from msdm_export.precision.variants import handed_on, source_models

RESULT = Path(__file__).parent / "results" / "precision_choices.json"
FP16 = FORMATS["fp16"]
SIDE_PX = 128
#: How a channel norm is exported, from the square on.
NORM = ("Pow", "ReduceMean", "Add", "Sqrt", "Reciprocal", "Mul", "Mul")


class Log(trt.ILogger):
    """Keeps every line: the built engine's kernels are only to be read there without a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def log(self, severity: Any, text: str) -> None:
        """One line."""
        self.lines.append(text)


def parsed(model: onnx.ModelProto, log: Log) -> tuple[Any, Any]:
    """Builder and network; a graph that does not parse is an error."""
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        raise SystemExit(f"{model.graph.name} does not parse: {parser.get_error(0).desc()}")
    return builder, (network, parser)


def built(model: onnx.ModelProto, log: Log) -> dict[str, Any]:
    """What the parser and the builder make of a denoiser."""
    log.lines.clear()
    builder, (network, _parser) = parsed(model, log)
    layers = collections.Counter(str(network.get_layer(i).type).rsplit(".", 1)[-1] for i in range(network.num_layers))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shape = _shape(tensor.name, tuple(tensor.shape))
        profile.set_shape(tensor.name, shape, shape, shape)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SystemExit("the build failed: " + "; ".join(log.lines[-3:]))
    text = "\n".join(log.lines)
    kernels = re.findall(r"^Name: ([^,]+), LayerType: (\w+)", text, re.MULTILINE)
    return {
        "onnx_nodes": len(model.graph.node),
        "casts": sum(node.op_type == "Cast" for node in model.graph.node),
        "parsed_layers": dict(layers.most_common()),
        "plan_bytes": plan.nbytes,
        "kernels": sum(kind not in ("signal", "wait") for _, kind in kernels),
        "fused_attention_kernels": sum("_mha_" in name for name, _ in kernels),
        "kernels_with_the_norm_s_chain": sum("MulMeanAddSqrtDiv" in name for name, _ in kernels),
    }


def _shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Batch and branches 1; height and width of the picture, or of the level that the name ends with."""
    image = SIDE_PX if name[-1:].isalpha() else SIDE_PX // 2 // 2 ** int(name[-1])
    spatial = len(shape) >= 4 and shape[-1] < 0
    known = [1 if size < 0 else size for size in shape]
    return (*known[:-2], image, image) if spatial else tuple(known)


def with_rms_normalization(model: onnx.ModelProto) -> onnx.ModelProto:
    """Channel norms as RMSNormalization (opset 23) over the last axis, between transposes."""
    model = shape_inference.infer_shapes(version_converter.convert_version(model, 23))
    graph = Graph(model)
    dropped: set[str] = set()
    instead: dict[str, tuple[str, str]] = {}
    for square in (node for node in graph.floating if node.op_type == "Pow"):
        chain = [square]
        while len(chain) < len(NORM) and len(graph.readers(chain[-1])) == 1:
            chain.append(graph.readers(chain[-1])[0])
        if tuple(node.op_type for node in chain) == NORM:
            dropped.update(node.name for node in chain)
            (gain,) = (name for name in chain[-1].input if name in graph.constants)
            instead[chain[-1].name] = square.input[0], gain
    nodes = []
    for node in model.graph.node:
        if node.name in instead:
            x, gain = instead[node.name]
            y, flat = node.output[0], f"{node.name}_gain"
            values = numpy_helper.to_array(graph.constants[gain]).ravel()
            model.graph.initializer.append(numpy_helper.from_array(values, flat))
            nodes += [
                helper.make_node("Transpose", [x], [f"{y}_last"], name=f"{y}_to_last", perm=[0, 2, 3, 1]),
                helper.make_node("RMSNormalization", [f"{y}_last", flat], [f"{y}_n"], name=f"{y}_rms", epsilon=1e-6),
                helper.make_node("Transpose", [f"{y}_n"], [y], name=f"{y}_to_first", perm=[0, 3, 1, 2]),
            ]
        elif node.name not in dropped:
            nodes.append(node)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    return shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
def main(bundle: Path | None) -> None:
    """Build the three, parse the opsets, write the JSON."""
    opened, log = Bundle.open(bundle), Log()
    models = source_models(opened)
    handed, denoiser = handed_on(models), models[DENOISER]
    rules = assign(denoiser, {}).float32
    softmax = {node.name for node in denoiser.graph.node if node.op_type == "Softmax"}
    rms = with_rms_normalization(denoiser)
    ways = {
        "as written": typed(denoiser, FP16, rules, handed),
        "softmax in float32": typed(denoiser, FP16, {*rules, *softmax}, handed),
        "RMSNormalization between transposes": typed(rms, FP16, assign(rms, {}).float32, handed),
    }
    document: dict[str, Any] = {
        "what": f"the FP16 denoiser in three ways, TensorRT for RTX, capability 8.9, {SIDE_PX} px, batch 1",
        "bundle": {"name": opened.manifest.name, "sha256": opened.sha256},
        "ways": {name: built(model, log) for name, model in ways.items()},
        "parsed_layers_by_opset": {},
    }
    for name, model in models.items():
        counts = {}
        for opset in range(20, 25):
            converted = shape_inference.infer_shapes(version_converter.convert_version(model, opset))
            # Values that do not fit are left out here: they change types, not how a graph parses.
            half = typed(converted, FP16, {*assign(model, {}).float32, *_infinite(model)}, handed)
            counts[str(opset)] = parsed(half, log)[1][0].num_layers
        document["parsed_layers_by_opset"][name] = counts
    document["environment"] = environment("onnx", "tensorrt-rtx-cu13")
    write_json(RESULT, document)


def _infinite(model: onnx.ModelProto) -> set[str]:
    """Nodes that read a constant beyond float16."""
    graph = Graph(model)
    beyond = {
        name for name, i in graph.constants.items() if abs(numpy_helper.to_array(i)).max(initial=0) > FP16.largest
    }
    return {node.name for node in graph.floating if beyond & set(node.input)}


if __name__ == "__main__":
    main()

"""The walk over a parsed network before it is built: the types that will run are those that were asked for.

A strongly typed network runs each layer in the types that it was parsed with, so what holds here holds in the plan:

* each convolution and matrix multiplication reads and writes the plan's half format (in a quantised graph the
  rest's), and so does each norm that is one layer (its ONNX node keeps its statistics in float32, ``stash_type``);
* in a quantised graph, exactly the nodes that the manifest lists read both operands from a DEQUANTIZE of INT8 or FP8;
* each reduction, which is what a norm of several layers takes its statistics with, is float32;
* the solver's update, from the state to ``state_next``, is float32;
* inputs and outputs have the names, types and shapes of the manifest, at the shapes of the profile.

Nodes that the manifest lists as kept in float32, each with a reason, are left out of the first rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from msdm_engine.bundle.manifest import TensorSpec
from msdm_engine.bundle.reader import command_that_makes
from msdm_engine.contract import DENOISER, DENOISER_INPUTS, DENOISER_OUTPUTS, FLOAT32
from msdm_engine.errors import BackendError
from msdm_export.plans.source import Source

#: TensorRT's name of the type that matrix work runs in; quantised nodes read DEQUANTIZE layers of this type.
MATRIX_TYPE = {FLOAT32: "FLOAT", "fp16": "HALF", "bf16": "BF16"}
#: TensorRT's name of a manifest's type.
TYPE_NAMES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16", "int64": "INT64", "int32": "INT32"}
#: And of the codes that a quantised plan's precision stands for.
CODE_TYPE = {"int8": "INT8", "fp8": "FP8"}
MATRIX_LAYERS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
NORM_NODES = ("LayerNormalization", "GroupNormalization", "RMSNormalization")
STATE_INPUTS, STATE_NEXT = DENOISER_INPUTS[:3], DENOISER_OUTPUTS[0]


@dataclass(frozen=True)
class Layer:
    """A layer as the walk reads it: names of types without their class."""

    name: str
    kind: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]

    @property
    def dtype(self) -> str:
        """Of its first output."""
        return self.outputs[0][1]


def layers_of(network: Any) -> list[Layer]:
    """All layers with the names and types of their tensors."""
    return [_layer(network.get_layer(i)) for i in range(network.num_layers)]


def _layer(layer: Any) -> Layer:
    def tensors(count: int, get: Any) -> tuple[tuple[str, str], ...]:
        found = (get(i) for i in range(count))
        return tuple((tensor.name, short(tensor.dtype)) for tensor in found if tensor is not None)

    inputs = tensors(layer.num_inputs, layer.get_input)
    return Layer(layer.name, short(layer.type), inputs, tensors(layer.num_outputs, layer.get_output))


def short(value: Any) -> str:
    """``DataType.HALF`` -> ``HALF``."""
    return str(value).rpartition(".")[2].split(":")[0].strip("<> ")


def counts(layers: Iterable[Layer]) -> dict[str, dict[str, int]]:
    """How many layers of each type, by the precision of their output: ``{"CONVOLUTION": {"HALF": 68}}``."""
    found: dict[str, Counter[str]] = {}
    for layer in layers:
        found.setdefault(layer.kind, Counter())[layer.dtype] += 1
    return {kind: dict(sorted(found[kind].items())) for kind in sorted(found)}


def walk(network: Any, source: Source, shapes: Mapping[str, tuple[int, ...]] | None) -> list[Layer]:
    """Checks a parsed network against what was asked for.

    Args:
        shapes: of each input where the plan is static; None: the dynamic dimensions stay open.

    Raises:
        BackendError: names the layer, what it has and what it should have.
    """
    layers = layers_of(network)
    problems = [
        *_tensor_problems(_tensors(network, "input"), source.spec.inputs, shapes),
        *_tensor_problems(_tensors(network, "output"), source.spec.outputs, None),
        *_matrix_problems(layers, source),
        *_code_problems(layers, source),
        *_reduction_problems(layers),
        *_stash_problems(source),
        *(_update_problems(layers) if source.graph == DENOISER else ()),
    ]
    for problem in problems:
        raise BackendError(
            f"the parsed {source.precision} graph '{source.graph}' is not what was asked for: {problem}",
            note="a plan runs exactly these types",
            hint=f"make the graph again: {command_that_makes(source.precision, Path('BUNDLE'))}",
        )
    return layers


def _tensors(network: Any, side: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    for i in range(getattr(network, f"num_{side}s")):
        tensor = getattr(network, f"get_{side}")(i)
        yield tensor.name, short(tensor.dtype), tuple(tensor.shape)


def _tensor_problems(
    found: Iterable[tuple[str, str, tuple[int, ...]]],
    listed: tuple[TensorSpec, ...],
    shapes: Mapping[str, tuple[int, ...]] | None,
) -> Iterator[str]:
    there = {name: (dtype, shape) for name, dtype, shape in found}
    for spec in listed:
        if spec.name not in there:
            yield f"it has no tensor '{spec.name}', which the manifest lists"
            continue
        dtype, shape = there[spec.name]
        if dtype != TYPE_NAMES.get(spec.dtype):
            yield f"tensor '{spec.name}' is {dtype}, the manifest says {spec.dtype}"
        wanted = shapes[spec.name] if shapes else tuple(-1 if isinstance(d, str) else d for d in spec.shape)
        if len(shape) != len(wanted) or any(b not in (a, -1) for a, b in zip(shape, wanted, strict=True)):
            yield f"tensor '{spec.name}' has the shape {shape}, asked for was {wanted}"
    for name in there.keys() - {spec.name for spec in listed}:
        yield f"it has the tensor '{name}', which the manifest does not list"


def _matrix_problems(layers: Iterable[Layer], source: Source) -> Iterator[str]:
    wanted = MATRIX_TYPE[source.rest]
    for layer in layers:
        if layer.name in source.kept:
            continue
        if layer.kind in MATRIX_LAYERS and {dtype for _, dtype in (*layer.inputs[:2], *layer.outputs)} != {wanted}:
            yield f"layer '{layer.name}' ({layer.kind}) runs in {_types(layer)}, not in {wanted}"
        if layer.kind == "NORMALIZATION" and layer.dtype != wanted:
            yield f"layer '{layer.name}' (NORMALIZATION) gives out {layer.dtype}, not {wanted}"


def _code_problems(layers: Iterable[Layer], source: Source) -> Iterator[str]:
    """Which matrix work reads codes: what the manifest lists, and nothing else."""
    layers = list(layers)
    codes = {name: layer.inputs[0][1] for layer in layers if layer.kind == "DEQUANTIZE" for name, _ in layer.outputs}
    wanted, seen = CODE_TYPE.get(source.precision), set()
    for layer in layers:
        if layer.kind not in MATRIX_LAYERS:
            continue
        read = [codes.get(name) for name, _ in layer.inputs[:2]]
        if layer.name in source.quantised:
            seen.add(layer.name)
            if read != [wanted] * 2:
                yield f"layer '{layer.name}' ({layer.kind}) reads {' x '.join(map(str, read))}, not codes of {wanted}"
        elif any(read):
            yield f"layer '{layer.name}' ({layer.kind}) reads codes, but the manifest does not list it as quantised"
    for name in sorted(source.quantised - seen):
        yield f"the quantised node '{name}' is no layer of matrix work"


def _reduction_problems(layers: Iterable[Layer]) -> Iterator[str]:
    for layer in layers:
        if layer.kind == "REDUCE" and layer.dtype in ("HALF", "BF16"):
            yield f"layer '{layer.name}' (REDUCE) takes its statistics in {layer.dtype}, not in FLOAT"


def _stash_problems(source: Source) -> Iterator[str]:
    for node in onnx.load_from_string(source.data).graph.node:
        stash = next((a.i for a in node.attribute if a.name == "stash_type"), onnx.TensorProto.FLOAT)
        if node.op_type in NORM_NODES and stash != onnx.TensorProto.FLOAT:
            yield f"node '{node.name}' ({node.op_type}) takes its statistics in ONNX type {stash}, not in float32"


def _update_problems(layers: Iterable[Layer]) -> Iterator[str]:
    """From ``state_next`` back through arithmetic: float32 all the way to state, previous estimate and noise."""
    producer = {name: layer for layer in layers for name, _ in layer.outputs}
    pending, reached = [STATE_NEXT], set()
    while pending:
        name = pending.pop()
        if name in reached:
            continue
        reached.add(name)
        layer = producer.get(name)
        if layer is None or layer.kind not in ("ELEMENTWISE", "CAST", "IDENTITY"):
            continue
        if layer.dtype != "FLOAT":
            yield f"layer '{layer.name}' of the solver's update runs in {layer.dtype}, not in FLOAT"
            return
        pending.extend(name for name, _ in layer.inputs)
    for name in sorted(set(STATE_INPUTS) - reached):
        yield f"'{name}' does not reach '{STATE_NEXT}' through float32 arithmetic alone"


def _types(layer: Layer) -> str:
    return " x ".join(dtype for _, dtype in layer.inputs[:2]) + f" -> {layer.dtype}"

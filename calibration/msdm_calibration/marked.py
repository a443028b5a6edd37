"""A graph whose activations are outputs too: every float32 tensor that a node makes, by its name in the ONNX file."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper, shape_inference

#: Nodes whose output holds the values of their first input, each once, in another place or shape.
REARRANGING = frozenset(
    {"DepthToSpace", "Flatten", "Identity", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze"}
)
#: ``op`` of a graph's own inputs.
INPUT = "Input"


@dataclass(frozen=True)
class Activation:
    """A float32 tensor of a graph that depends on the graph's inputs.

    Args:
        tensor: its name.
        node, op: the node that makes it and its type; empty and :data:`INPUT` for an input of the graph.
        layer: the module that it belongs to, by the nearest weight (``unet.up.2.blocks.0.conv1``): the one that its
            node reads, or whose bias is added to it, else that of its node's operand; empty before the first weight.
        readers: (node, type, position among that node's inputs) of every use.
        same_values_as: the tensor of which this one only rearranges the values; empty: it has values of its own.
    """

    tensor: str
    node: str
    op: str
    layer: str
    readers: tuple[tuple[str, str, int], ...]
    same_values_as: str = ""


def load_graph(data: bytes) -> onnx.ModelProto:
    """The model of a bundle's file with types and shapes inferred."""
    return shape_inference.infer_shapes(onnx.load_from_string(data))


def activations_of(model: onnx.ModelProto) -> tuple[Activation, ...]:
    """All activations in the graph's order, its float32 inputs first.

    Weights, and what is computed from weights alone (those stored in half stand behind a Cast), are none.

    Args:
        model: with inferred types, see :func:`load_graph`.
    """
    graph = model.graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    readers: dict[str, list[tuple[str, str, int]]] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append((node.name, node.op_type, position))
    constants = {initializer.name for initializer in graph.initializer}
    # A transposed weight has lost its name: its matrix product belongs to the bias that is added to it.
    biases = {
        name: _module(bias)
        for node in graph.node
        if node.op_type == "Add"
        for bias, name in itertools.permutations(node.input, 2)
        if bias in constants and "." in bias
    }
    layers: dict[str, str] = {}
    originals: dict[str, str] = {}
    found = [
        Activation(value.name, "", INPUT, "", tuple(readers.get(value.name, ())))
        for value in graph.input
        if value.name not in constants and types[value.name] == TensorProto.FLOAT
    ]
    for node in graph.node:
        if all(not name or name in constants for name in node.input):
            constants.update(node.output)
            continue
        layer = _layer_of(node, constants, layers, biases)
        for name in node.output:
            layers[name] = layer
            if types.get(name) != TensorProto.FLOAT:
                continue
            if node.op_type in REARRANGING:
                originals[name] = originals.get(node.input[0], node.input[0])
            uses = tuple(readers.get(name, ()))
            found.append(Activation(name, node.name, node.op_type, layer, uses, originals.get(name, "")))
    return tuple(found)


def _layer_of(
    node: onnx.NodeProto, constants: Collection[str], layers: Mapping[str, str], biases: Mapping[str, str]
) -> str:
    """Module of the first named weight among the operands, else of the bias, else the last operand's that has one.

    The last: in ``x * norm(x)`` and ``skip + branch`` the exporter puts what was computed later behind.
    """
    for name in node.input:
        if name in constants and "." in name:
            return _module(name)
    if node.op_type == "MatMul" and node.output[0] in biases and node.input[1] in constants:
        return biases[node.output[0]]
    known = [layers[name] for name in node.input if layers.get(name)]
    return known[-1] if known else ""


def _module(weight: str) -> str:
    return weight.rsplit(".", 1)[0].removeprefix("model.")


def with_outputs(model: onnx.ModelProto, tensors: Collection[str]) -> onnx.ModelProto:
    """A copy of the model with these tensors behind its own outputs; those that it gives out already are left out.

    Raises:
        ValueError: a tensor that no node of the graph makes.
    """
    made = {name for node in model.graph.node for name in node.output}
    unknown = [name for name in tensors if name not in made]
    if unknown:
        raise ValueError(f"graph {model.graph.name} has no tensor {', '.join(unknown)}")
    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    known = {value.name: value for value in model.graph.value_info}
    present = {value.name for value in model.graph.output}
    for name in dict.fromkeys(tensors):
        if name not in present:
            marked.graph.output.append(known.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return marked

"""Which nodes of a graph are quantised, and why the others are kept: rules on structure, not on names.

Names only group what is quantised into blocks, for the precision map.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from msdm_calibration.marked import load_graph
from msdm_engine.contract import (
    CONDITIONER_INPUTS,
    CRITIC_INPUTS,
    CRITIC_OUTPUTS,
    DENOISER_INPUTS,
    DENOISER_OUTPUTS,
    ROW,
)
from msdm_engine.errors import BundleError

MATRIX = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
PIXELS_IN = frozenset({*DENOISER_INPUTS[:3], CONDITIONER_INPUTS[0], *CRITIC_INPUTS})
PIXELS_OUT = frozenset({*DENOISER_OUTPUTS, *CRITIC_OUTPUTS})

#: Why a matrix node is kept in the precision of the rest.
REASONS = {
    "first": "it reads pixels with no matrix work before it: nothing later can undo their rounding",
    "last": "it writes pixels with no matrix work behind it",
    "sigma": "computed from the schedule row alone: every layer would carry its error",
    "vector": "one row for each sample: no matrix work worth saving",
    "small": "under a quarter percent of a step's matrix work: more risked than gained",
    "attention": "both operands are activations: fused attention stays half, and its share of the work is small",
}


#: Share of a step's matrix work below which a node is kept.
SMALL = 0.0025


@dataclass(frozen=True)
class Target:
    """A node that is quantised: weights for each output channel, its first input as one tensor.

    Args:
        node, op: name and type of the node.
        tensor: its first input.
        axis: of the weight's output channels.
        weight: [O, I, k, k] of a convolution, [I, O] of a matrix product; float32.
        bias: [O] float32; zeros where it has none.
        layer: module that the weight belongs to; block: the residual block or attention that layer is part of.
    """

    node: str
    op: str
    tensor: str
    axis: int
    weight: np.ndarray
    bias: np.ndarray
    layer: str
    block: str

    @property
    def input_axis(self) -> int:
        """Of the weight's input channels."""
        return 1 - self.axis

    @property
    def channel_axis(self) -> int:
        """Of the channels of the first input."""
        return 1 if self.op == "Conv" else -1

    def per_output(self, values: np.ndarray) -> np.ndarray:
        """[O] shaped to broadcast over the weight."""
        return values.reshape([-1 if axis == self.axis else 1 for axis in range(self.weight.ndim)])

    def per_input(self, values: np.ndarray) -> np.ndarray:
        """[I] shaped to broadcast over the weight."""
        return values.reshape([-1 if axis == self.input_axis else 1 for axis in range(self.weight.ndim)])


@dataclass(frozen=True)
class Targets:
    """What is quantised, in the graph's order, and what is kept: node -> key of :data:`REASONS`."""

    found: tuple[Target, ...]
    kept: dict[str, str]

    def blocks(self) -> dict[str, tuple[Target, ...]]:
        """The targets of each block, in order."""
        names = dict.fromkeys(target.block for target in self.found)
        return {name: tuple(t for t in self.found if t.block == name) for name in names}


def plain_graph(data: bytes) -> onnx.ModelProto:
    """A bundle's float32 graph with its weights as float32: those stored in half behind a Cast are unpacked.

    Raises:
        BundleError: a node lacks a name of its own; a target is known by its node's.
    """
    model = onnx.load_from_string(data)
    stored = {i.name: i for i in model.graph.initializer if i.data_type == TensorProto.FLOAT16}
    kept = []
    for node in model.graph.node:
        half = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if half is None:
            kept.append(node)
        else:
            values = numpy_helper.to_array(half).astype(np.float32)
            half.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    names = [node.name for node in kept]
    if len(set(names)) != len(names) or not all(names):
        raise BundleError(f"graph '{model.graph.name}' has nodes without a name of their own", hint="export it again")
    return load_graph(model.SerializeToString())


def constants_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Floating-point initializers by name."""
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer if i.data_type in kinds}


def targets_of(model: onnx.ModelProto, flops: Mapping[str, int]) -> Targets:
    """Decides for every node of matrix work.

    Args:
        model: float32, of :func:`plain_graph`.
        flops: of its nodes (:func:`flops_of`).
    """
    least = SMALL * sum(flops.values())
    constants = constants_of(model)
    origins, bare = _origins(model)
    last = _last(model)
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in (*model.graph.value_info, *model.graph.input)}
    found: list[Target] = []
    kept: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type not in MATRIX:
            continue
        tensor = node.input[0]
        if node.op_type == "ConvTranspose" or node.input[1] not in constants:
            kept[node.name] = "attention"
        elif origins[node.output[0]] == {ROW}:
            kept[node.name] = "sigma"
        elif ranks.get(tensor) == 2:
            kept[node.name] = "vector"
        elif node.name in last:
            kept[node.name] = "last"
        elif bare[tensor]:
            kept[node.name] = "first"
        elif flops.get(node.name, 0) < least:
            kept[node.name] = "small"
        else:
            found.append(_target(node, constants))
    return Targets(tuple(found), kept)


def _target(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> Target:
    weight = constants[node.input[1]]
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    axis = 0 if node.op_type == "Conv" or transposed else 1
    has_bias = len(node.input) > 2 and node.input[2] in constants
    bias = constants[node.input[2]] if has_bias else np.zeros(weight.shape[axis], np.float32)
    layer = node.input[1].rsplit(".", 1)[0].removeprefix("model.") if "." in node.input[1] else node.name
    return Target(node.name, node.op_type, node.input[0], axis, weight, bias, layer, block_of(layer))


def block_of(layer: str) -> str:
    """``unet.down.0.blocks.1.conv2`` -> ``unet.down.0.blocks.1``; ``unet.shrink.0`` is a block of its own."""
    return re.sub(r"\.(conv\d*|spade|skip|query|out)$", "", layer)


def _origins(model: onnx.ModelProto) -> tuple[dict[str, frozenset[str]], dict[str, bool]]:
    """For each tensor the graph inputs that it depends on, and whether pixels reach it with no matrix work between.

    One such path is enough: a convolution near the output that reads features beside differences of the state reads
    the state.
    """
    origins: dict[str, frozenset[str]] = {value.name: frozenset({value.name}) for value in model.graph.input}
    bare: dict[str, bool] = {value.name: value.name in PIXELS_IN for value in model.graph.input}
    for node in model.graph.node:
        union = frozenset[str]().union(*(origins.get(name, frozenset()) for name in node.input))
        reached = node.op_type not in MATRIX and any(bare.get(name, False) for name in node.input)
        origins.update(dict.fromkeys(node.output, union))
        bare.update(dict.fromkeys(node.output, reached))
    return origins, bare


def _last(model: onnx.ModelProto) -> set[str]:
    """Matrix nodes from which a pixel output is reached with no other in between."""
    producer = {name: node for node in model.graph.node for name in node.output}
    found, seen = set[str](), set[str]()
    pending = [value.name for value in model.graph.output if value.name in PIXELS_OUT]
    while pending:
        node = producer.get(pending.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in MATRIX:
            found.add(node.name)
        else:
            pending.extend(node.input)
    return found


def flops_of(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Operations of each matrix node at the shapes that were seen: 2 for each multiply-accumulate.

    Args:
        shapes: of the first input and the output of each such node.
    """
    weights = {i.name: tuple(i.dims) for i in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type not in MATRIX or node.output[0] not in shapes:
            continue
        output = int(np.prod(shapes[node.output[0]]))
        if node.op_type == "Conv":
            found[node.name] = 2 * output * int(np.prod(weights[node.input[1]][1:]))
        else:
            found[node.name] = 2 * output * int(shapes[node.input[0]][-1])
    return found


def share_below_half(flops: Mapping[str, int], quantised: Iterable[str]) -> float:
    """Share of the matrix work that these nodes do."""
    total = sum(flops.values())
    return sum(flops.get(node, 0) for node in quantised) / total if total else 0.0

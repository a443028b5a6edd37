"""What a graph costs at one shape: arithmetic, parameters and memory, from its ONNX alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from msdm_export.plans.shapes import Shape, tensor_shapes

#: Nodes whose output is their input seen in another shape: no memory of their own.
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})


@dataclass(frozen=True)
class Cost:
    """Cost of one run of a graph.

    Args:
        flops: 2 for each multiply-accumulate of convolutions and matrix products (Conv, MatMul, Gemm); nothing else
            is counted.
        parameters: values in the initializers.
        weight_bytes: their size as stored.
        io_bytes: inputs and outputs together.
        activation_bytes: largest sum of intermediate tensors alive at once when nodes run one after another and none
            is fused. A compiled plan fuses, so it needs less: an upper estimate.
    """

    flops: int
    parameters: int
    weight_bytes: int
    io_bytes: int
    activation_bytes: int

    @property
    def device_bytes(self) -> int:
        """Everything together: an upper estimate of what a run holds on the device."""
        return self.weight_bytes + self.io_bytes + self.activation_bytes


def cost_of(data: bytes) -> Cost:
    """Cost of a model whose inputs have fixed shapes; raises BundleError where a shape is not known beforehand."""
    model = onnx.load_from_string(data)
    known = tensor_shapes(model)
    graph = model.graph
    weights = {initializer.name for initializer in graph.initializer}
    outside = [value.name for value in (*graph.input, *graph.output)]
    return Cost(
        flops=sum(_flops(node, known) for node in graph.node),
        parameters=sum(_elements(known[name][1]) for name in weights),
        weight_bytes=sum(_bytes(known[name]) for name in weights),
        io_bytes=sum(_bytes(known[name]) for name in outside),
        activation_bytes=_peak(graph, known, {*weights, *outside}),
    )


def _flops(node: onnx.NodeProto, known: dict[str, tuple[int, Shape]]) -> int:
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return 0
    output, first = known[node.output[0]][1], known[node.input[0]][1]
    if node.op_type == "Conv":  # kernel: [out, in / groups, ...]
        return 2 * _elements(output) * _elements(known[node.input[1]][1][1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return 2 * _elements(output) * (first[0] if transposed else first[-1])


def _peak(graph: onnx.GraphProto, known: dict[str, tuple[int, Shape]], outside: set[str]) -> int:
    """Walks the nodes in order; a tensor lives from the node that makes it to the last one that reads it."""
    owner: dict[str, str] = {}
    for node in graph.node:
        for name in node.output:
            owner[name] = owner.get(node.input[0], node.input[0]) if node.op_type in VIEWS and node.input else name
    last = {owner.get(name, name): i for i, node in enumerate(graph.node) for name in node.input if name}
    alive, peak = 0, 0
    sizes: dict[str, int] = {}
    for i, node in enumerate(graph.node):
        for name in node.output:
            if name and owner[name] == name and name not in outside:
                sizes[name] = _bytes(known[name])
                alive += sizes[name]
        peak = max(peak, alive)
        for name in [name for name in sizes if last.get(name, i) <= i]:
            alive -= sizes.pop(name)
    return peak


def _bytes(tensor: tuple[int, Shape]) -> int:
    kind, shape = tensor
    return _elements(shape) * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize


def _elements(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64))

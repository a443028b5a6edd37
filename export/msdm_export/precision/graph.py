"""A float32 ONNX graph as the rules read it: who makes, who reads, what is floating point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, shape_inference

#: Nodes that copy values without arithmetic: they keep the type of what they move.
MOVEMENT = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherND",
        "Identity",
        "Pad",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)

#: Inputs that ONNX fixes to float32 whatever the type of the data: region of interest and scales.
FIXED_INPUTS = {"Resize": (1, 2)}


def is_movement(node: onnx.NodeProto) -> bool:
    """Whether the node only copies values."""
    if node.op_type == "Resize":
        return any(a.name == "mode" and a.s == b"nearest" for a in node.attribute)
    return node.op_type in MOVEMENT


class Graph:
    """Lookups of one graph.

    Attributes:
        floating: nodes with a floating-point output, in order.
        producer: tensor -> the node that makes it.
        constants: floating-point initializers by name.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        nodes = model.graph.node
        if len({node.name for node in nodes}) != len(nodes) or not all(node.name for node in nodes):
            raise ValueError(f"graph {model.graph.name} has nodes without a name of their own")
        self.constants = {i.name: i for i in model.graph.initializer if i.data_type == TensorProto.FLOAT}
        values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._types.update({i.name: i.data_type for i in model.graph.initializer})
        self.producer = {name: node for node in nodes for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self.floating = [node for node in nodes if self.is_floating(node)]

    def is_float(self, name: str) -> bool:
        """Whether the tensor is float32."""
        return self._types.get(name) == TensorProto.FLOAT

    def is_floating(self, node: onnx.NodeProto) -> bool:
        """Whether the node makes float32 values."""
        return any(self.is_float(name) for name in node.output)

    def operands(self, node: onnx.NodeProto) -> list[str]:
        """The node's floating-point inputs that take the node's type."""
        fixed = FIXED_INPUTS.get(node.op_type, ())
        return [name for i, name in enumerate(node.input) if name and i not in fixed and self.is_float(name)]

    def readers(self, node: onnx.NodeProto) -> Sequence[onnx.NodeProto]:
        """The nodes that read any output of the node."""
        return [reader for name in node.output for reader in self._readers.get(name, [])]


def float32_from_stored(data: bytes) -> onnx.ModelProto:
    """A bundle's float32 graph as plain float32: weights stored in half behind a Cast become float32 initializers.

    Types and shapes of all tensors are inferred anew.
    """
    model = onnx.load_from_string(data)
    stored = {i.name: i for i in model.graph.initializer if i.data_type == TensorProto.FLOAT16}
    kept = []
    for node in model.graph.node:
        half = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if half is None:
            kept.append(node)
            continue
        values = numpy_helper.to_array(half).astype(np.float32)
        half.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return shape_inference.infer_shapes(model, check_type=True, strict_mode=True)

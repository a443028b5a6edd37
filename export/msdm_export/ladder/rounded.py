"""What a typed graph computes where half is half: every half tensor rounded, sums in float32.

ONNX Runtime on the CPU keeps the values between half nodes in float32 and drops the roundings, so it is more precise
than a GPU, and it has no bfloat16 at all. Here each half tensor becomes a float32 tensor that is rounded to the format
after the node that makes it: half storage, float32 accumulation, as tensor cores do it. A GPU that fuses nodes rounds
less often; the order of its sums differs.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from msdm_export.precision.formats import Format
from msdm_export.precision.graph import is_movement


def rounded(model: onnx.ModelProto, half: Format) -> onnx.ModelProto:
    """A typed graph as float32 arithmetic with explicit rounding; inputs and outputs become float32.

    Names of tensors stay; a rounded tensor ``x`` is made as ``x_exact`` first.
    """
    types = {value.name: value.type.tensor_type.elem_type for value in _values(model)}
    types.update({initializer.name: initializer.data_type for initializer in model.graph.initializer})
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for initializer in out.graph.initializer:
        if initializer.data_type == half.onnx_type:
            values = numpy_helper.to_array(initializer).astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    nodes: list[onnx.NodeProto] = []
    for node in out.graph.node:
        to_float32 = node.op_type == "Cast" and types.get(node.output[0]) == TensorProto.FLOAT
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == half.onnx_type:
                attribute.i = TensorProto.FLOAT
        after = []
        for i, name in enumerate(node.output):
            # What is only moved, or cast from half to float32, has been rounded where it was made.
            if types.get(name) == half.onnx_type and not is_movement(node) and not to_float32:
                node.output[i] = f"{name}_exact"
                after.extend(_rounding(f"{name}_exact", name, half))
        nodes.extend([node, *after])
    del out.graph.node[:], out.graph.value_info[:]
    out.graph.node.extend(nodes)
    for value in (*out.graph.input, *out.graph.output):
        if value.type.tensor_type.elem_type == half.onnx_type:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return shape_inference.infer_shapes(out, check_type=True, strict_mode=True)


def _rounding(source: str, target: str, half: Format) -> list[onnx.NodeProto]:
    narrow = f"{target}_narrow"
    return [
        helper.make_node("Cast", [source], [narrow], name=f"{narrow}_cast", to=half.onnx_type),
        helper.make_node("Cast", [narrow], [target], name=f"{target}_wide_cast", to=TensorProto.FLOAT),
    ]


def _values(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*model.graph.value_info, *model.graph.input, *model.graph.output]


def depths(model: onnx.ModelProto, half: Format) -> dict[str, int]:
    """For each tensor of a typed graph, how many roundings to the format lie on the longest path to it."""
    types = {value.name: value.type.tensor_type.elem_type for value in _values(model)}
    found: dict[str, int] = {}
    for node in model.graph.node:
        before = max((found.get(name, 0) for name in node.input), default=0)
        for name in node.output:
            rounds = types.get(name) == half.onnx_type and not is_movement(node)
            found[name] = before + rounds
    return found


def quantised_depths(model: onnx.ModelProto, nodes: Collection[str]) -> dict[str, int]:
    """For each tensor, how many of these nodes lie on the longest path to it."""
    found: dict[str, int] = {}
    for node in model.graph.node:
        before = max((found.get(name, 0) for name in node.input), default=0)
        found.update(dict.fromkeys(node.output, before + (node.name in nodes)))
    return found

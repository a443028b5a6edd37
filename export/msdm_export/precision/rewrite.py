"""Writes the types of an assignment into a graph."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from msdm_engine.errors import NumericsError
from msdm_export.precision.formats import Format
from msdm_export.precision.graph import FIXED_INPUTS, Graph, is_movement

FLOAT = TensorProto.FLOAT


def typed(
    model: onnx.ModelProto, half: Format, float32: Collection[str], handed_on: Collection[str]
) -> onnx.ModelProto:
    """The graph with each node in its type and one Cast for each tensor and type that is read in another.

    Args:
        model: a float32 graph with inferred types.
        float32: names of the nodes that stay float32; movement follows what it moves.
        handed_on: graph inputs and outputs that pass between graphs, and so are in half (if the format says so).

    Raises:
        NumericsError: a weight exceeds the format's range; names the weight and the node.
    """
    graph = Graph(model)
    handed = set(handed_on) if half.handed_on else set()
    out = onnx.ModelProto()
    out.CopyFrom(model)
    writer = _Writer(graph, half, handed)
    nodes = [node for old in model.graph.node for node in writer.node(old, float32)]
    del out.graph.node[:], out.graph.value_info[:], out.graph.initializer[:]
    out.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    out.graph.initializer.extend(i for i in (*model.graph.initializer, *writer.constants.values()) if i.name in read)
    for value in (*out.graph.input, *out.graph.output):
        if value.name in handed and value.type.tensor_type.elem_type == FLOAT:
            value.type.tensor_type.elem_type = half.onnx_type
    out = shape_inference.infer_shapes(out, check_type=True, strict_mode=True)
    onnx.checker.check_model(out, full_check=True)
    return out


class _Writer:
    """Types of the tensors written so far, and the casts and constants made for them."""

    def __init__(self, graph: Graph, half: Format, handed: Collection[str]) -> None:
        self.graph, self.half = graph, half
        self.types = {
            value.name: half.onnx_type if value.name in handed else FLOAT
            for value in graph.model.graph.input
            if graph.is_float(value.name)
        }
        self.outputs = {
            value.name: half.onnx_type if value.name in handed else FLOAT
            for value in graph.model.graph.output
            if graph.is_float(value.name)
        }
        self.constants: dict[str, onnx.TensorProto] = {}
        self.casts: set[str] = set()

    def node(self, old: onnx.NodeProto, float32: Collection[str]) -> list[onnx.NodeProto]:
        """The node in its type, after the casts that it needs."""
        new = onnx.NodeProto()
        new.CopyFrom(old)
        if not self.graph.is_floating(old):
            return [*self._same_type(old, new), new]
        wanted = self._wanted(old, float32)
        fixed, before = FIXED_INPUTS.get(old.op_type, ()), []
        for i, name in enumerate(old.input):
            if name and self.graph.is_float(name) and i not in fixed:
                new.input[i], casts = self._read(name, wanted, old)
                before.extend(casts)
        if old.op_type == "Cast":
            next(a for a in new.attribute if a.name == "to").i = wanted
        self.types.update(dict.fromkeys(old.output, wanted))
        return [*before, new, *self._as_promised(new)]

    def _as_promised(self, new: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Casts of graph outputs that the node makes in another type than the graph gives them out in."""
        casts = []
        for i, name in enumerate(new.output):
            made, promised = self.types.get(name), self.outputs.get(name)
            if promised is not None and made != promised:
                new.output[i] = f"{name}_made"
                casts.append(helper.make_node("Cast", [new.output[i]], [name], name=f"{name}_cast", to=promised))
                self.types[name] = promised
        return casts

    def _same_type(self, old: onnx.NodeProto, new: onnx.NodeProto) -> list[onnx.NodeProto]:
        """A comparison of floats: all operands in float32."""
        before = []
        varying = [name for name in old.input if self.types.get(name, FLOAT) != FLOAT]
        for name in varying if len(old.input) > 1 else ():
            at = list(old.input).index(name)
            new.input[at], casts = self._read(name, FLOAT, old)
            before.extend(casts)
        return before

    def _wanted(self, node: onnx.NodeProto, float32: Collection[str]) -> int:
        if node.name in float32:
            return FLOAT
        if is_movement(node):
            moved = [self.types[name] for name in self.graph.operands(node) if name in self.types]
            if moved and all(kind == FLOAT for kind in moved):
                return FLOAT
        return self.half.onnx_type

    def _read(self, name: str, wanted: int, reader: onnx.NodeProto) -> tuple[str, list[onnx.NodeProto]]:
        """The name under which the tensor is to be had in the wanted type, and the Cast that makes it."""
        if name in self.graph.constants:
            return (name if wanted == FLOAT else self._constant(name, reader)), []
        if self.types[name] == wanted:
            return name, []
        other = f"{name}_{'float32' if wanted == FLOAT else self.half.name}"
        if other in self.casts:
            return other, []
        self.casts.add(other)
        return other, [helper.make_node("Cast", [name], [other], name=f"{other}_cast", to=wanted)]

    def _constant(self, name: str, reader: onnx.NodeProto) -> str:
        other = f"{name}_{self.half.name}"
        if other not in self.constants:
            values = numpy_helper.to_array(self.graph.constants[name])
            largest = float(np.abs(values).max(initial=0))
            if largest > self.half.largest:
                raise NumericsError(
                    f"weight {name} of {reader.op_type} {reader.name} exceeds {self.half.name}: {largest:.6g}",
                    note=f"the largest value of {self.half.name} is {self.half.largest:.6g}",
                    hint="retrain with weight decay, or use --to bf16, which has float32's range",
                )
            self.constants[other] = numpy_helper.from_array(values.astype(self.half.dtype), other)
        return other

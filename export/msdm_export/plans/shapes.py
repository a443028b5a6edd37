"""Shape and type of every tensor of a graph whose inputs are fixed, without running it.

Graphs compute the shapes of their reshapes from their inputs' shapes, which ONNX's own inference follows only in
part; here those few integers are evaluated node by node on the way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.defs import get_schema
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import infer_node_outputs

from msdm_engine.errors import BundleError

#: Constants of up to this many values may decide a shape: reshape targets, scales, axes.
SMALL = 1024

Shape = tuple[int, ...]


def tensor_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, Shape]]:
    """ONNX element type and shape of each input, initializer and output of a node.

    Args:
        model: its inputs have fixed shapes (:func:`msdm_export.plans.source.fixed_shapes`).

    Raises:
        BundleError: a shape depends on the values of an input; names the node.
    """
    graph = model.graph
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    types = {value.name: value.type for value in graph.input}
    constants: dict[str, np.ndarray] = {}
    for initializer in graph.initializer:
        types[initializer.name] = onnx.helper.make_tensor_type_proto(initializer.data_type, initializer.dims)
        if np.prod(initializer.dims) <= SMALL:
            constants[initializer.name] = numpy_helper.to_array(initializer)
    for node in graph.node:
        known = _evaluated(node, types, constants)
        if known is not None:
            for name, value in zip(node.output, known, strict=True):
                constants[name] = value
                code = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
                types[name] = onnx.helper.make_tensor_type_proto(code, value.shape)
            continue
        schema = get_schema(node.op_type, opsets[node.domain], node.domain)
        given = {name: types[name] for name in node.input if name}
        data = {name: numpy_helper.from_array(constants[name], name) for name in node.input if name in constants}
        types |= infer_node_outputs(schema, node, given, data)
        missing = [name for name in node.output if name and _shape(types.get(name)) is None]
        if missing:
            raise BundleError(
                f"the shape of '{missing[0]}' (node '{node.name}', {node.op_type}) depends on the values of an input",
                note="a plan needs shapes that follow from the shapes of the inputs",
                hint="export the graph without this node",
            )
    return {name: (kind.tensor_type.elem_type, shape) for name, kind, shape in _with_shapes(types)}


def _with_shapes(types: dict[str, onnx.TypeProto]) -> Iterator[tuple[str, onnx.TypeProto, Shape]]:
    for name, kind in types.items():
        shape = _shape(kind)
        if shape is not None:
            yield name, kind, shape


def _shape(kind: onnx.TypeProto | None) -> Shape | None:
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dimensions = kind.tensor_type.shape.dim
    if not all(dimension.HasField("dim_value") for dimension in dimensions):
        return None
    return tuple(dimension.dim_value for dimension in dimensions)


def _evaluated(
    node: onnx.NodeProto, types: dict[str, onnx.TypeProto], constants: dict[str, np.ndarray]
) -> list[np.ndarray] | None:
    """Values of a node that works on shapes: ``Shape`` itself, and integers made of known integers."""
    if node.op_type == "Shape":
        shape = _shape(types[node.input[0]])
        ends = {attribute.name: attribute.i for attribute in node.attribute}
        return None if shape is None else [np.array(shape[ends.get("start", 0) : ends.get("end")], np.int64)]
    names = [name for name in node.input if name]
    if node.op_type == "Constant" or (names and all(name in constants for name in names)):
        values = [constants[name] for name in names]
        whole = all(value.dtype.kind in "iub" for value in values)
        if node.op_type != "Constant" and (not whole or _casts_to_float(node)):
            return None
        found = ReferenceEvaluator(node).run(None, dict(zip(names, values, strict=True)))
        return [np.asarray(value) for value in found]
    return None


def _casts_to_float(node: onnx.NodeProto) -> bool:
    integer = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
    return node.op_type == "Cast" and next(a.i for a in node.attribute if a.name == "to") not in integer

"""PyTorch modules -> ONNX files."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from msdm_engine.bundle.manifest import TensorSpec
from msdm_engine.errors import NumericsError
from msdm_export.graphs import GraphExport

#: LayerNormalization is one node since opset 17; nothing used here is younger than 20.
OPSET = 20

#: Initializers below this many values stay float32: they are biases, norms and scalars, a fraction of a percent.
HALF_STORAGE_MIN_VALUES = 1024


def onnx_from_module(graph: GraphExport) -> onnx.ModelProto:
    """Exports one graph in float32 with named inputs, outputs and dynamic dimensions."""
    silence = io.StringIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(silence), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.module.eval(),
            graph.example,
            input_names=list(graph.input_names),
            output_names=list(graph.output_names),
            dynamic_shapes=graph.dynamic,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"the exporter returned nothing for {graph.name}")
    model = program.model_proto
    for node in model.graph.node:  # the exporter's traces hold paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.metadata_props[:], model.graph.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    model.graph.name = graph.name
    onnx.checker.check_model(model, full_check=True)
    return model


def tensor_specs(values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    """Inputs or outputs of a graph as the manifest lists them."""
    specs = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(d.dim_param or d.dim_value for d in tensor.shape.dim)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        specs.append(TensorSpec(value.name, dtype, shape))
    return tuple(specs)


def store_weights_in_half(model: onnx.ModelProto) -> int:
    """Stores large float32 weights as float16 behind a Cast; the arithmetic stays float32.

    Runtimes fold the Cast when they load the graph, so a step costs nothing. The weights must already be
    rounded to float16 values (see :func:`round_to_half`), so that nothing changes here.

    Returns:
        the number of weights stored in half.
    """
    count, casts = 0, []
    for initializer in model.graph.initializer:
        if initializer.data_type != TensorProto.FLOAT or np.prod(initializer.dims) < HALF_STORAGE_MIN_VALUES:
            continue
        values, name = numpy_helper.to_array(initializer), initializer.name
        half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            raise ValueError(f"weight {name} is not rounded to float16")
        initializer.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
        count += 1
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return count


def round_to_half(module: torch.nn.Module) -> float:
    """Rounds large float32 parameters to float16 values in place; returns the largest relative change.

    Raises:
        NumericsError: a weight is beyond float16's range; names it.
    """
    worst = 0.0
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dtype != torch.float32 or parameter.numel() < HALF_STORAGE_MIN_VALUES:
                continue
            rounded = parameter.half().float()
            if not torch.isfinite(rounded).all():
                raise NumericsError(
                    f"weight {name} exceeds float16's range: {parameter.abs().max().item():g}",
                    note="the largest value of float16 is 65504",
                    hint="store the weights with --weights float32",
                )
            change = torch.linalg.vector_norm(rounded - parameter) / torch.linalg.vector_norm(parameter).clamp(
                min=1e-12
            )
            worst = max(worst, change.item())
            parameter.copy_(rounded)
    return worst

"""ONNX Runtime on the CPU for comparisons: sessions from models in memory, with intermediate tensors on request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from msdm_engine.errors import BackendError

Arrays = dict[str, np.ndarray]


def session_from_model(model: onnx.ModelProto | bytes) -> Any:
    """A session on the CPU.

    Raises:
        BackendError: ONNX Runtime is not installed, or cannot run the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            "comparing graphs needs an ONNX runtime and none is installed", hint="pip install 'msdm[export,cpu]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    data = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises its own classes, derived from Exception only
        raise BackendError(f"ONNX Runtime {onnxruntime.__version__} cannot run a graph: {error}") from error


def run_session(session: Any, inputs: Arrays) -> Arrays:
    """All outputs by name; inputs are cast to the types that the session wants (float32 and float16 only)."""
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    given = {
        value.name: inputs[value.name].astype(kinds.get(value.type, inputs[value.name].dtype), copy=False)
        for value in session.get_inputs()
    }
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


def exposing(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """The model with more of its tensors among its outputs; their types must have been inferred."""
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    present = {value.name for value in exposed.graph.output}
    for name in tensors:
        if name not in present:
            exposed.graph.output.append(helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None))
            present.add(name)
    return exposed

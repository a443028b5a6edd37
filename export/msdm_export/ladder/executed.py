"""What of a typed graph ONNX Runtime's CPU executes in half, read from the graph as it has optimised it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto


def executed_in_half(model: onnx.ModelProto) -> dict[str, Any]:
    """Nodes of the optimised graph by the type that they compute in, casts apart.

    Returns:
        ``float16`` and ``float32``: operator -> nodes; ``casts``: their number; ``stored_half_bytes``: of weights.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(options.optimized_model_filepath)
    half = {i.name for i in optimised.graph.initializer if i.data_type == TensorProto.FLOAT16}
    half |= {v.name for v in optimised.graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    counts: dict[str, dict[str, int]] = {"float16": {}, "float32": {}}
    casts = 0
    for node in optimised.graph.node:
        if node.op_type == "Cast":
            casts += 1
            if any(a.name == "to" and a.i == TensorProto.FLOAT16 for a in node.attribute):
                half.update(node.output)
            continue
        kind = "float16" if half & set(node.input) else "float32"
        # Shapes and indices are integers: no arithmetic on values.
        if node.op_type != "Shape":
            counts[kind][node.op_type] = counts[kind].get(node.op_type, 0) + 1
        if kind == "float16" and node.op_type != "Shape":
            half.update(node.output)
    stored = sum(len(i.raw_data) for i in model.graph.initializer if i.data_type == TensorProto.FLOAT16)
    return {
        **{kind: dict(sorted(ops.items())) for kind, ops in counts.items()},
        "casts": casts,
        "stored_half_bytes": stored,
    }

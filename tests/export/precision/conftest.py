"""Small float32 graphs made by hand, with every rule in them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference


def network(weight: float = 1.0) -> onnx.ModelProto:
    """row, state -> state_next, denoised: scaling by the row, convolution, channel norm, convolution, update.

    The convolutions are identities, scaled: the first by ``weight``.
    """
    eye = np.eye(2, dtype=np.float32)[:, :, None, None]
    constants = {
        "first": eye * weight,
        "last": eye * 0.5,
        "two": np.float32(2),
        "tiny": np.float32(1e-6),
        "axes": np.array([1]),
        "zero": np.array([0]),
        "one": np.array([1]),
    }
    nodes = [
        ("Slice", ["row", "zero", "one", "zero"], "sigma"),
        ("Log", ["sigma"], "embedding"),
        ("Mul", ["state", "embedding"], "scaled"),
        ("Conv", ["scaled", "first"], "features"),
        ("Pow", ["features", "two"], "square"),
        ("ReduceMean", ["square", "axes"], "mean"),
        ("Add", ["mean", "tiny"], "safe"),
        ("Sqrt", ["safe"], "root"),
        ("Reciprocal", ["root"], "scale"),
        ("Mul", ["features", "scale"], "normed"),
        ("Sigmoid", ["normed"], "gate"),
        ("Conv", ["gate", "last"], "network"),
        ("Reshape", ["network", "shape"], "moved"),
        ("Add", ["state", "moved"], "denoised"),
        ("Mul", ["denoised", "sigma"], "state_next"),
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    tensors.append(numpy_helper.from_array(np.array([0, 2, 4, 4]), "shape"))
    made = [helper.make_node(op, inputs, [output], name=f"node_{output}") for op, inputs, output in nodes]
    image: list[str | int | None] = ["batch", 2, 4, 4]
    graph = helper.make_graph(
        made,
        "tiny",
        [
            helper.make_tensor_value_info("row", TensorProto.FLOAT, [5]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, image),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, image) for name in ("state_next", "denoised")],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture
def tiny() -> onnx.ModelProto:
    """The network with weights that fit."""
    return network()

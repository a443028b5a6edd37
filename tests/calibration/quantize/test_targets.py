"""What is kept, by position in the graph: an output head that reads the state beside features among it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from msdm_calibration.quantize.targets import targets_of


@pytest.fixture
def head() -> onnx.ModelProto:
    """enter -> block -> features; mix(features, state less its neighbour) -> leave; D = state + leave."""
    convolutions = {
        "enter": ("state", "entered", 6),
        "block": ("entered", "inside", 6),
        "features": ("inside", "seen", 6),
        "mix": ("beside", "mixed", 12),
        "leave": ("mixed", "left", 6),
    }
    nodes, constants = [], []
    for name, (given, made, channels) in convolutions.items():
        if name == "mix":
            nodes += [
                helper.make_node("Sub", ["state", "noise"], ["differences"], "sub"),
                helper.make_node("Concat", ["seen", "differences"], ["beside"], "concat", axis=1),
            ]
        nodes.append(helper.make_node("Conv", [given, f"model.{name}.weight"], [made], name))
        constants.append(numpy_helper.from_array(np.ones((6, channels, 1, 1), np.float32), f"model.{name}.weight"))
    nodes.append(helper.make_node("Add", ["state", "left"], ["denoised"], "add"))
    shape = [1, 6, 8, 8]
    inputs, outputs = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in names]
        for names in (("state", "noise"), ("denoised",))
    )
    model = helper.make_model(helper.make_graph(nodes, "denoiser", inputs, outputs, constants))
    onnx.checker.check_model(model)
    return model


def test_what_reads_the_state_or_writes_the_estimate_is_kept(head: onnx.ModelProto) -> None:
    targets = targets_of(head, dict.fromkeys(("enter", "block", "features", "mix", "leave"), 1))
    assert targets.kept == {"enter": "first", "mix": "first", "leave": "last"}
    assert [target.node for target in targets.found] == ["block", "features"]
    assert list(targets.blocks()) == ["block", "features"]

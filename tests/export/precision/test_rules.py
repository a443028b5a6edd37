"""What stays float32, from the structure of a graph."""

from __future__ import annotations

import numpy as np
import onnx

from msdm_export.precision.ranges import Misfit
from msdm_export.precision.rules import assign


def test_each_rule_finds_its_nodes(tiny: onnx.ModelProto) -> None:
    rules = assign(tiny, {}).float32
    assert {node for node, rule in rules.items() if rule == "sigma"} == {"node_sigma", "node_embedding"}
    # denoised = state + moved and state_next = denoised x sigma; the Reshape between only moves.
    assert {node for node, rule in rules.items() if rule == "update"} == {"node_denoised", "node_state_next"}
    chain = {"square", "mean", "safe", "root", "scale"}
    assert {node for node, rule in rules.items() if rule == "statistics"} == {f"node_{name}" for name in chain}
    # The state and its scale are both float32: their product is rounded once, by the convolution.
    assert {node for node, rule in rules.items() if rule == "operands"} == {"node_scaled"}
    assert not {"node_features", "node_normed", "node_gate", "node_network", "node_moved"} & set(rules)


def test_an_overflow_keeps_all_that_touch_it_and_says_what_was_found(tiny: onnx.ModelProto) -> None:
    assignment = assign(tiny, {"normed": Misfit(True, "normed reaches 7e+04")})
    assert {node for node, rule in assignment.float32.items() if rule == "range"} == {"node_normed", "node_gate"}
    reasons = [entry["reason"] for entry in assignment.exceptions() if entry["rule"] == "range"]
    assert reasons
    assert all("normed reaches 7e+04" in str(reason) for reason in reasons)


def test_a_summand_may_underflow_and_a_factor_may_not(tiny: onnx.ModelProto) -> None:
    tiny.graph.node.append(onnx.helper.make_node("Add", ["gate", "small"], ["sum"], name="node_sum"))
    tiny.graph.node.append(onnx.helper.make_node("Mul", ["sum", "small"], ["product"], name="node_product"))
    tiny.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1e-9, np.float32), "small"))
    model = onnx.shape_inference.infer_shapes(tiny)
    rules = assign(model, {"small": Misfit(False, "small loses 1 of its L2 norm")}).float32
    assert "node_sum" not in rules
    assert rules["node_product"] == "range"

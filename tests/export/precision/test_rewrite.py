"""Types that are written are those of the assignment, and what is computed is what they say."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from msdm_engine.errors import NumericsError, RequestError
from msdm_export.ladder.rounded import depths, rounded
from msdm_export.precision.formats import FORMATS, format_named
from msdm_export.precision.ranges import Range, misfits
from msdm_export.precision.rewrite import typed
from msdm_export.precision.rules import assign
from msdm_export.sessions import run_session, session_from_model

FP16 = FORMATS["fp16"]
HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def test_each_tensor_has_the_type_of_its_node(tiny: onnx.ModelProto) -> None:
    half = typed(tiny, FP16, assign(tiny, {}).float32, ())
    types = types_of(half)
    assert {name for name in ("features", "normed", "gate", "network", "moved") if types[name] != HALF} == set()
    single = ("sigma", "embedding", "scaled", "square", "mean", "scale", "denoised", "state_next", "state", "row")
    assert {name for name in single if types[name] != SINGLE} == set()
    convolutions = [node for node in half.graph.node if node.op_type == "Conv"]
    weights = {i.name: i.data_type for i in half.graph.initializer}
    assert [weights[node.input[1]] for node in convolutions] == [HALF, HALF]


def test_a_tensor_is_cast_once_for_all_that_read_it(tiny: onnx.ModelProto) -> None:
    half = typed(tiny, FP16, assign(tiny, {}).float32, ())
    casts = [(node.input[0], node.attribute[0].i) for node in half.graph.node if node.op_type == "Cast"]
    assert sorted(casts) == sorted({("scaled", HALF), ("features", SINGLE), ("scale", HALF), ("moved", SINGLE)})


def test_a_tensor_that_is_handed_on_is_half_at_the_boundary(tiny: onnx.ModelProto) -> None:
    half = typed(tiny, FP16, assign(tiny, {}).float32, {"state", "denoised"})
    types = types_of(half)
    assert (types["state"], types["denoised"], types["state_next"]) == (HALF, HALF, SINGLE)
    assert {value.name for value in half.graph.output} == {"state_next", "denoised"}


def test_the_rounded_model_is_float32_and_rounds_each_half_tensor(tiny: onnx.ModelProto) -> None:
    model = rounded(typed(tiny, FP16, assign(tiny, {}).float32, ()), FP16)
    row, state = np.array([np.e, 0, 0, 0, 0], np.float32), np.full((1, 2, 4, 4), 1 / 3, np.float32)
    state[:, 1] = 0.7
    found = run_session(session_from_model(model), {"row": row, "state": state})
    # sigma is e, so the embedding is 1; identity convolutions; every half tensor rounded where it is made.
    x = state.astype(np.float16).astype(np.float32)
    scale = (1 / np.sqrt(np.mean(np.square(x), 1, keepdims=True) + 1e-6)).astype(np.float16).astype(np.float32)
    normed = (x * scale).astype(np.float16).astype(np.float32)
    gate = (1 / (1 + np.exp(-normed))).astype(np.float16).astype(np.float32)
    expected = state + (gate * 0.5).astype(np.float16).astype(np.float32)
    # The same roundings; float32 functions of two libraries may differ by a unit, which may tip one rounding.
    assert np.abs(found["denoised"] - expected).max() <= 2.0**-11
    assert np.abs(found["denoised"] - expected).mean() < 2.0**-14
    assert np.array_equal(found["state_next"], found["denoised"] * row[0])


def test_depths_count_roundings_on_the_longest_path(tiny: onnx.ModelProto) -> None:
    found = depths(typed(tiny, FP16, assign(tiny, {}).float32, ()), FP16)
    # cast of the scaled state, convolution, cast of the norm's scale, product, sigmoid, convolution; moving is free.
    assert (found["features"], found["normed"], found["network"], found["moved"]) == (2, 4, 6, 6)


def test_a_weight_beyond_the_format_is_named_with_its_layer(tiny: onnx.ModelProto) -> None:
    for initializer in tiny.graph.initializer:
        if initializer.name == "first":
            values = onnx.numpy_helper.to_array(initializer) * 1e6
            initializer.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), "first"))
    with pytest.raises(NumericsError, match=r"weight first of Conv node_features exceeds fp16: 1e\+06"):
        typed(tiny, FP16, (), ())


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_an_unknown_precision_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=f"unknown precision '{name}'"):
        format_named(name)


def test_ranges_tell_overflow_from_underflow() -> None:
    ranges = {"fits": Range(), "high": Range(), "low": Range()}
    ranges["fits"].add(np.array([1.0, 300.0], np.float32), FP16, None)
    ranges["high"].add(np.array([4e4], np.float32), FP16, 3.0)  # below 65504, but not by the factor in hand
    ranges["low"].add(np.array([1e-6], np.float32), FP16, None)  # subnormal: spacing 2^-24, loses up to 3 %
    found = misfits(ranges, FP16)
    assert set(found) == {"high", "low"}
    assert found["high"].overflows
    assert "at noise level 3" in found["high"].found
    assert not found["low"].overflows

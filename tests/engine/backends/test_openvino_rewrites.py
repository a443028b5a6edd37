"""Rewritten graphs compute what they did; what must not be touched is left alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from msdm_engine import Bundle
from msdm_engine.backends.openvino import OpenVinoBackend
from msdm_engine.backends.openvino_rewrites import join_linear_layers, split_convolutions
from msdm_engine.bench.setting import Setting
from msdm_engine.bench.worker import denoiser_inputs
from msdm_engine.contract import DENOISER

openvino = pytest.importorskip("openvino", reason="needs the extra openvino")
ops: Any = pytest.importorskip("openvino.opset13", reason="needs the extra openvino")
GENERATOR = np.random.default_rng(0)


def values(*shape: int) -> np.ndarray:
    return GENERATOR.integers(-4, 5, shape).astype(np.float32)


def computed(model: Any, given: np.ndarray) -> list[np.ndarray]:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(value) for value in compiled([given]).values()]


def kinds(model: Any) -> Counter[str]:
    return Counter(node.get_type_name() for node in model.get_ops())


def convolution_and_split(axis: int = 1, half: bool = False, codes: bool = False, scaled: bool = False) -> Any:
    """[1, 3, 4, 4] -> two halves of a convolution of four channels; ``scaled`` codes are what ONNX dequantises."""
    entry = ops.parameter([1, 3, 4, 4], np.float32)
    coded = codes or scaled
    weights = ops.constant(values(4, 3, 1, 1).astype(np.int8 if coded else np.float16 if half else np.float32))
    stored = ops.convert(weights, "f32") if half or coded else weights
    if scaled:
        zeros = ops.reshape(ops.convert(ops.constant(values(4).astype(np.int8)), "f32"), [4, 1, 1, 1], False)
        scales = ops.reshape(ops.constant(np.array([0.5, 1, 2, 4], np.float32)), [4, 1, 1, 1], False)
        stored = ops.multiply(ops.subtract(stored, zeros), scales)
    convolution = ops.convolution(entry, stored, [1, 1], [0, 0], [0, 0], [1, 1])
    whole = ops.add(convolution, ops.constant(values(1, 4, 1, 1)))
    parts = ops.split(whole, ops.constant(axis), 2)
    return openvino.Model([ops.relu(parts.output(number)) for number in range(2)], [entry])


@pytest.mark.parametrize("stored", [{}, {"half": True}, {"scaled": True}])
def test_a_split_convolution_becomes_two(stored: dict[str, Any]) -> None:
    model = convolution_and_split(**stored)
    given = values(1, 3, 4, 4)
    expected = computed(model, given)
    assert split_convolutions(model) == 1
    assert kinds(model)["Convolution"] == 2
    assert kinds(model)["Split"] == 0
    # Small whole numbers: their products and sums are exact in any order.
    assert all(np.array_equal(a, b) for a, b in zip(computed(model, given), expected, strict=True))


@pytest.mark.parametrize("kept", [{"axis": 2}, {"codes": True}])
def test_a_convolution_stays_that_is_split_elsewhere_or_holds_bare_codes(kept: dict[str, Any]) -> None:
    assert split_convolutions(convolution_and_split(**kept)) == 0


def test_a_convolution_stays_whose_whole_is_read_too() -> None:
    model = convolution_and_split()
    (whole,) = [node for node in model.get_ops() if node.get_type_name() == "Add"]
    model.add_results([ops.result(whole)])
    assert split_convolutions(model) == 0


def test_outputs_of_the_graph_keep_their_names() -> None:
    model = convolution_and_split()
    (split,) = [node for node in model.get_ops() if node.get_type_name() == "Split"]
    model.add_results([ops.result(split.output(0))])
    assert split_convolutions(model) == 0


def linear_layers(widths: tuple[int, ...], transposed: bool = True) -> Any:
    """[2, 3] -> a layer of each width behind it, with the factors of ONNX's Gemm."""
    entry = ops.parameter([2, 3], np.float32)
    source, outputs = ops.relu(entry), []
    for width in widths:
        weight = values(width, 3)
        product = ops.matmul(source, ops.constant(weight if transposed else weight.T.copy()), False, transposed)
        scaled = ops.multiply(product, ops.constant(np.float32(1)))
        outputs.append(ops.relu(ops.add(scaled, ops.constant(values(width)))))
    return openvino.Model(outputs, [entry])


@pytest.mark.parametrize("transposed", [True, False])
def test_layers_of_one_input_become_one(transposed: bool) -> None:
    model = linear_layers((2, 5, 1), transposed)
    given = values(2, 3)
    expected = computed(model, given)
    assert join_linear_layers(model) == 3
    assert kinds(model)["MatMul"] == 1
    assert all(np.array_equal(a, b) for a, b in zip(computed(model, given), expected, strict=True))


def test_a_layer_alone_stays() -> None:
    assert join_linear_layers(linear_layers((4,))) == 0


def test_the_reference_denoiser_has_both_and_computes_the_same(reference: Bundle) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="compares with onnxruntime")
    inputs = denoiser_inputs(reference, Setting(batch=2, size_px=32, steps=1, threads=1))
    backend = OpenVinoBackend(reference, threads=1)
    found = backend.run(DENOISER, inputs)
    session = onnxruntime.InferenceSession(reference.contents[reference.manifest.graphs[DENOISER].file])
    for name, expected in zip(("state_next", "denoised"), session.run(None, inputs), strict=True):
        # Float32 sums of up to 3,500 products in another order: some 1e-6 of values of size one.
        assert np.linalg.norm(found[name] - expected) < 1e-5 * np.linalg.norm(expected)
    model = openvino.Core().read_model(model=reference.contents[reference.manifest.graphs[DENOISER].file])
    model.reshape({name: list(value.shape) for name, value in inputs.items()})
    assert join_linear_layers(model) > 1
    assert split_convolutions(model) > 1
    backend.close()

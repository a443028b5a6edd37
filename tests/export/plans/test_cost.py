"""Cost of graphs whose arithmetic can be counted by hand."""

from __future__ import annotations

import onnx.parser
import pytest

from msdm_engine.errors import BundleError
from msdm_export.plans.cost import cost_of
from msdm_export.plans.shapes import tensor_shapes

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'


def parsed(body: str) -> onnx.ModelProto:
    model: onnx.ModelProto = onnx.parser.parse_model(HEADER + body)
    return model


def test_convolution_and_products_by_hand() -> None:
    body = """
    g (float[2,4,8,8] x) => (float[2,6] y)
    <float[6,2,3,3] k = {WEIGHTS}, float[6,6] w = {SQUARE}, int64[2] s = {2, -1}> {
      c = Conv<group=2, pads=[1,1,1,1]>(x, k)
      p = GlobalAveragePool(c)
      f = Reshape(p, s)
      y = MatMul(f, w)
    }"""
    body = body.replace("WEIGHTS", ", ".join(["1.0"] * 108)).replace("SQUARE", ", ".join(["1.0"] * 36))
    cost = cost_of(parsed(body).SerializeToString())
    # Convolution: 2 x 6 x 8 x 8 outputs, each 2 channels x 3 x 3 multiply-accumulates; product: 2 x 6 outputs, 6 each.
    assert cost.flops == 2 * (2 * 6 * 8 * 8 * 2 * 9 + 2 * 6 * 6)
    assert cost.parameters == 108 + 36 + 2
    assert cost.weight_bytes == 4 * (108 + 36) + 8 * 2
    assert cost.io_bytes == 4 * (2 * 4 * 8 * 8 + 2 * 6)
    # Alive together at most: the convolution's output and its mean; the reshape is a view of the latter.
    assert cost.activation_bytes == 4 * (2 * 6 * 8 * 8 + 2 * 6)
    assert cost.device_bytes == cost.weight_bytes + cost.io_bytes + cost.activation_bytes


def test_shapes_that_the_graph_computes_are_followed() -> None:
    model = parsed("""
    g (float[3,4,5] x) => (float[A,B] y) <int64[1] zero = {0}, int64[1] m = {-1}> {
      s = Shape(x)
      first = Gather<axis=0>(s, zero)
      target = Concat<axis=0>(first, m)
      y = Reshape(x, target)
    }""")
    assert tensor_shapes(model)["y"] == (onnx.TensorProto.FLOAT, (3, 20))


def test_a_shape_that_depends_on_values_is_refused_by_name() -> None:
    model = parsed("g (float[4] x) => (int64[1, N] y) { [which] y = NonZero(x) }")
    with pytest.raises(BundleError, match=r"the shape of 'y' \(node 'which', NonZero\) depends on the values"):
        tensor_shapes(model)

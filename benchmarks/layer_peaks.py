"""The matrix peak of one core for the network's own convolutions: each alone in a graph, its input in the cache.

Convolutions are 99 % of a step's matrix work, and the fastest matrix work that the runtimes have here: the same
products as plain matrix products are slower. For float32 NumPy's BLAS is tried too, patches in place; the faster
counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdm_engine.backends.onnx_profile import Product, dimensions, products_of_event
from msdm_engine.bench.peak import fastest_s

#: Runs of each convolution; the fastest counts.
RUNS = 7
#: The kernels by which OpenVINO computes in each precision say so in their names.
KERNEL = {"f32": "f32", "bf16": "bf16", "int8": "i8"}


@dataclass(frozen=True)
class Convolution:
    """[B, I, H, W] -> [B, O, H, W] by a kernel of side k, stride 1, as all of the network's."""

    batch: int
    inputs: int
    outputs: int
    side: int
    height: int
    width: int

    @property
    def product(self) -> Product:
        """As a matrix product with the patches in place."""
        return Product(self.outputs, self.inputs * self.side**2, self.batch * self.height * self.width)


def convolutions(nodes: Mapping[str, Mapping[str, Any]]) -> Counter[Convolution]:
    """How often a graph has which, from :func:`msdm_engine.backends.onnx_profile.nodes_of`."""
    found: Counter[Convolution] = Counter()
    for node in nodes.values():
        if node["op_name"] == "Conv":
            (batch, inputs, height, width), (outputs, _, side, _) = map(dimensions, node["input_type_shape"][:2])
            convolution = Convolution(batch, inputs, outputs, side, height, width)
            assert products_of_event(node) == Counter({convolution.product: 1}), "a convolution of another kind"
            found[convolution] += 1
    return found


def peak(found: Mapping[Convolution, int], precision: str) -> dict[str, float]:
    """GFLOP/s of all convolutions one after another, and of the one that is fastest.

    Args:
        precision: ``f32``, ``bf16`` or ``int8`` (the operations are then of eight-bit codes).
    """
    fastest = {convolution: openvino_s(convolution, precision) for convolution in found}
    if precision == "f32":
        products = {c: c.product for c in found}
        fastest = {c: min(fastest[c], fastest_s(p.m, p.k, p.n)) for c, p in products.items()}
    seconds = sum(fastest[c] * times for c, times in found.items())
    flops = sum(c.product.flops * times for c, times in found.items())
    largest = max(c.product.flops / took for c, took in fastest.items())
    return {"own_shapes_gflop_s": flops / seconds / 1e9, "best_shape_gflop_s": largest / 1e9}


def openvino_s(convolution: Convolution, precision: str) -> float:
    """Seconds of one convolution by OpenVINO's own counter, without the conversion of what it reads."""
    import openvino

    c, generator = convolution, np.random.default_rng(0)
    shapes = (c.batch, c.inputs, c.height, c.width), (c.outputs, c.inputs, c.side, c.side)
    x, weights = (generator.integers(-8, 9, shape).astype(np.float32) / 8 for shape in shapes)
    given = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "f32" else "bf16",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERF_COUNT": True,
    }
    compiled = openvino.Core().compile_model(_graph(x.shape, weights, precision == "int8"), "CPU", given)
    request = compiled.create_infer_request()
    found, seconds = None, []
    for _ in range(RUNS):
        found = request.infer({0: x}, share_inputs=True)[0]
        (node,) = [node for node in request.profiling_info if node.node_type == "Convolution"]
        assert KERNEL[precision] in node.exec_type.lower(), f"{precision} ran as {node.exec_type}"
        seconds.append(node.real_time.total_seconds())
    # Operands are whole eighths up to 1, exact in eight bits; a sum of k terms is rounded to bfloat16 (2**-9) once.
    row, column, half = c.height // 2, c.width // 2, c.side // 2
    patch = x[0, :, row - half : row + half + 1, column - half : column + half + 1]
    expected = np.einsum("oikl,ikl->o", weights.astype(float), patch)
    assert found is not None and np.allclose(found[0, :, row, column], expected, rtol=2**-7, atol=2**-7), (
        "another convolution"
    )
    return max(min(seconds), 1e-6)  # the counter's resolution


def _graph(shape: tuple[int, ...], weights: np.ndarray, quantised: bool) -> Any:
    import openvino
    from openvino import opset13 as ops

    entry = ops.parameter(list(shape), np.float32)
    left, right, pad = entry, ops.constant(weights), [weights.shape[2] // 2] * 2
    if quantised:  # steps of an eighth: what the operands are whole multiples of
        low, high = np.float32(-16), np.float32(15.875)
        left = ops.fake_quantize(left, low, high, low, high, 256)
        right = ops.fake_quantize(right, -high, high, -high, high, 255)
    return openvino.Model([ops.convolution(left, right, [1, 1], pad, pad, [1, 1])], [entry])

"""Other formulations of the same step, in turns with the exported one: what docs/runtime.md says was tried.

Each is compiled several times: where a graph's memory happens to lie moves its time by a few percent. A ratio is
that of the medians over all its copies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx
from benchmarks.layer_profiles import Arrays
from benchmarks.timer import measure
from onnx import helper, numpy_helper

from msdm_engine import Bundle
from msdm_engine.backends.openvino_rewrites import join_linear_layers, split_convolutions
from msdm_engine.contract import DENOISER

COPIES = 3
EXPORTED = "as exported"
#: Float32 sums in another order; bfloat16 rounds other values on the way.
LARGEST_ERROR = {"f32": 1e-5, "bf16": 0.05}
#: Name -> what it does to an OpenVINO model of fixed shapes.
Rewrites = dict[str, Callable[[Any], object]]


def rewrites() -> Rewrites:
    """The trials in OpenVINO."""
    return {
        EXPORTED: lambda model: None,
        "linear layers joined": join_linear_layers,
        "convolutions split": split_convolutions,
        "both: what the backend does": lambda model: (join_linear_layers(model), split_convolutions(model)),
        "channel mean as a convolution with ones": mean_by_convolution,
        "channel norm as NormalizeL2": norm_by_l2,
    }


def openvino_trials(bundle: Bundle, inputs: Arrays, precision: str, repeats: int) -> dict[str, float]:
    """Seconds of the processor over those of the exported graph, by trial."""
    import openvino

    core, run, outputs = openvino.Core(), {}, {}
    for name, rewrite in rewrites().items():
        for copy in range(COPIES):
            model = core.read_model(model=bundle.contents[bundle.manifest.graphs[DENOISER].file])
            model.reshape({tensor: list(value.shape) for tensor, value in inputs.items()})
            rewrite(model)
            given = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
            request = core.compile_model(model, "CPU", given).create_infer_request()
            run[name, copy] = partial(request.infer, dict(inputs), share_inputs=True)
            outputs[name] = np.array(run[name, copy]()["denoised"])
    return ratios(run, outputs, precision, repeats)


def onnxruntime_trials(bundle: Bundle, inputs: Arrays, repeats: int) -> dict[str, float]:
    """As :func:`openvino_trials`, in float32."""
    import onnxruntime

    options, run, outputs = onnxruntime.SessionOptions(), {}, {}
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    exported = bundle.contents[bundle.manifest.graphs[DENOISER].file]
    for name, model in {EXPORTED: exported, "channel mean as a convolution with ones": with_ones(exported)}.items():
        for copy in range(COPIES):
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            run[name, copy] = partial(session.run, ["denoised"], dict(inputs))
            outputs[name] = np.array(run[name, copy]()[0])
    return ratios(run, outputs, "f32", repeats)


def ratios(
    run: Mapping[tuple[str, int], Callable[[], Any]], outputs: Mapping[str, np.ndarray], precision: str, repeats: int
) -> dict[str, float]:
    """Checks what the trials compute, then times all copies in turns."""
    reference = outputs[EXPORTED]
    for name, found in outputs.items():
        error = np.linalg.norm(found - reference) / np.linalg.norm(reference)
        assert error < LARGEST_ERROR[precision], f"{name} computes something else: {error:.3g}"
    named = {f"{name} {copy}": function for (name, copy), function in run.items()}
    timings = measure(named, warmups=1, repeats=repeats, clock=time.process_time)
    medians = {n: np.median([timings[f"{n} {copy}"].median_s for copy in range(COPIES)]) for n in outputs}
    return {name: float(median / medians[EXPORTED]) for name, median in medians.items()}


def mean_by_convolution(model: Any) -> None:
    """[B, C, H, W] -> its mean over channels as a 1 x 1 convolution with weights 1 / C."""
    import openvino.opset13 as ops

    for mean in _means(model):
        squares = mean.input_value(0)
        channels = squares.get_shape()[1]
        ones = ops.constant(np.full((1, channels, 1, 1), 1 / channels, np.float32))
        mean.output(0).replace(ops.convolution(squares, ones, [1, 1], [0, 0], [0, 0], [1, 1]).output(0))


def norm_by_l2(model: Any) -> None:
    """x / sqrt(mean + eps) = sqrt(C) x / sqrt(sum + C eps), which is one operation of OpenVINO's."""
    import openvino.opset13 as ops

    for mean in _means(model):
        x, channels = mean.input_value(0).get_node().input_value(0), mean.get_input_shape(0)[1]
        added = node = _reader(mean)
        while node.get_type_name() != "Multiply":
            node = _reader(node)
        eps = float(added.input_value(1).get_node().get_data().item())
        l2 = ops.normalize_l2(x, ops.constant(np.array([1])), channels * eps, "add")
        root = ops.constant(np.full((1, 1, 1, 1), np.sqrt(channels), np.float32))
        node.output(0).replace(ops.multiply(l2, root).output(0))


def _means(model: Any) -> list[Any]:
    return [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "ReduceMean" and node.input_value(0).get_node().get_type_name() == "Power"
    ]


def _reader(node: Any) -> Any:
    return next(iter(node.output(0).get_target_inputs())).get_node()


def with_ones(data: bytes) -> bytes:
    """The ONNX graph with the means of squares over channels as convolutions with weights 1 / C."""
    model = onnx.load_from_string(data)
    made = {name: node for node in model.graph.node for name in node.output}
    shapes = {value.name: value.type.tensor_type.shape for value in model.graph.value_info}
    for node in model.graph.node:
        squares = made.get(node.input[0]) if node.op_type == "ReduceMean" else None
        if squares is None or squares.op_type != "Pow":
            continue
        channels = shapes[node.input[0]].dim[1].dim_value
        ones = numpy_helper.from_array(np.full((1, channels, 1, 1), 1 / channels, np.float32), f"{node.name}_ones")
        model.graph.initializer.append(ones)
        replaced = helper.make_node("Conv", [node.input[0], ones.name], list(node.output), name=node.name)
        node.CopyFrom(replaced)
    written: bytes = model.SerializeToString()
    return written

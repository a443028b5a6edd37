"""One denoiser step layer by layer: what ONNX Runtime's profile and OpenVINO's counters say, by kind of work."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine import Bundle
from msdm_engine.backends.onnx_profile import Product, node_events, products_of_event
from msdm_engine.backends.openvino import OpenVinoBackend
from msdm_engine.contract import DENOISER

Arrays = Mapping[str, np.ndarray]
#: Kind -> types of nodes, ONNX Runtime's and OpenVINO's names together. What OpenVINO fuses is a Subgraph: norm,
#: modulation and activation are one kind of work there, so they are in both.
KINDS = {
    "convolution": ("Conv", "Convolution"),
    "norm, modulation, activation, update": (
        "Subgraph", "Reduce", "ReduceMean", "ReduceSum", "Mul", "Add", "Sub", "Div", "Pow", "Sqrt", "Reciprocal",
        "Sigmoid", "QuickGelu", "Eltwise",
    ),
    "linear layers": ("Gemm", "FullyConnected"),
    "attention": ("MatMul", "FusedMatMul", "Softmax"),
    "layout and type": ("Reorder", "ReorderInput", "ReorderOutput", "Cast", "Convert", "Transpose"),
    "split and join": ("Split", "Concat", "Concatenation", "Slice", "StridedSlice", "Broadcast", "Expand", "Gather"),
    "resampling": ("Pooling", "AveragePool", "Interpolate", "Upsample", "Resize", "DepthToSpace", "SpaceToDepth"),
}  # fmt: skip
REST = "rest"
_KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}


@dataclass(frozen=True)
class Layer:
    """One node as a runtime ran it.

    Args:
        name, type, kernel: the runtime's own; ``kernel`` is empty where it does not say.
        seconds: the shortest of the profiled runs; others use the machine too.
        flops: two for each multiply-add of its matrix products, 0 for all else.
    """

    name: str
    type: str
    kernel: str
    seconds: float
    flops: int

    @property
    def kind(self) -> str:
        """A key of :data:`KINDS`, or :data:`REST`."""
        return _KIND_OF.get(self.type, REST)


def by_kind(layers: Iterable[Layer]) -> dict[str, float]:
    """Seconds of each kind, the longest first."""
    found: dict[str, float] = {}
    for layer in layers:
        found[layer.kind] = found.get(layer.kind, 0.0) + layer.seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def of_onnxruntime(bundle: Bundle, inputs: Arrays, runs: int) -> list[Layer]:
    """The float32 graph on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        model = bundle.contents[bundle.manifest.graphs[DENOISER].file]
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    seen: dict[str, list[dict[str, Any]]] = {}
    for name, event in node_events(events):
        seen.setdefault(name, []).append(event)
    return [
        Layer(name, each[0]["op_name"], "", min(e["dur"] for e in each) / 1e6, flops_of(products_of_event(each[0])))
        for name, each in seen.items()
    ]


def of_openvino(
    backend: OpenVinoBackend, products: Mapping[str, Counter[Product]], inputs: Arrays, runs: int
) -> list[Layer]:
    """The graph of a backend that was opened with ``perf_count=YES``.

    Args:
        products: by node of the ONNX graph.
    """
    shapes = tuple((name, tuple(value.shape)) for name, value in sorted(inputs.items()))
    compiled = backend.compiled(DENOISER, shapes)
    request = compiled.create_infer_request()
    seconds: dict[str, list[float]] = {}
    for _ in range(runs):
        request.infer(dict(inputs), share_inputs=True)
        for node in request.profiling_info:
            seconds.setdefault(node.node_name, []).append(node.real_time.total_seconds())
    layers = []
    for node in compiled.get_runtime_model().get_ops():
        told = {
            key: node.get_rt_info()[key].astype(str) for key in ("layerType", "primitiveType", "originalLayersNames")
        }
        if node.get_friendly_name() not in seconds:
            continue
        own: Counter[Product] = Counter()
        if told["layerType"] in ("Convolution", "FullyConnected", "MatMul"):
            for name in {part.split("/")[0] for part in told["originalLayersNames"].split(",")}:
                own += products.get(name, Counter())
        name = node.get_friendly_name()
        layers.append(Layer(name, told["layerType"], told["primitiveType"], min(seconds[name]), flops_of(own)))
    return layers


def flops_of(products: Mapping[Product, int]) -> int:
    """Two for each multiply-add."""
    return sum(product.flops * times for product, times in products.items())

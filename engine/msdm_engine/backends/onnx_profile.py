"""Matrix products of a graph, counted from one run of it: ONNX Runtime's profile names each node's shapes.

The run is without graph optimisation, so that every convolution and product is the model's own, and not what a fusion
or a blocked layout made of it.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.bundle.reader import Bundle
from msdm_engine.errors import BackendError

#: How a profile marks the event of a node's work.
KERNEL = "_kernel_time"


@dataclass(frozen=True)
class Product:
    """[m, k] times [k, n]."""

    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        """Two for each multiply-add."""
        return 2 * self.m * self.k * self.n


def products_of(bundle: Bundle, graph: str, inputs: Mapping[str, np.ndarray]) -> Counter[Product]:
    """How often a graph computes which product, for inputs of these shapes; see :func:`products_by_node`."""
    return sum(products_by_node(bundle, graph, inputs).values(), Counter())


def products_by_node(bundle: Bundle, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, Counter[Product]]:
    """What each node of a graph computes, by the node's name; nodes without a product are left out.

    A convolution counts as the product of its weights [O, I kh kw] with all its patches [I kh kw, B H W], once for each
    group; element-wise work counts as none.

    Raises:
        BackendError: ONNX Runtime is not installed, or cannot run the graph.
    """
    nodes = nodes_of(bundle, graph, inputs)
    return {name: products for name, node in nodes.items() if (products := products_of_event(node))}


def nodes_of(bundle: Bundle, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Each node of a graph as it ran, by its name: ``op_name`` and the shapes of what it read and wrote.

    Raises:
        BackendError: ONNX Runtime is not installed, or cannot run the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError("operations are counted by onnxruntime", hint="pip install 'msdm[cpu]'") from error
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        options.log_severity_level = 3
        try:
            model = bundle.contents[bundle.manifest.graphs[graph].file]
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            session.run(None, dict(inputs))
            events = json.loads(Path(session.end_profiling()).read_text())
        except Exception as error:  # ONNX Runtime raises its own classes, derived from Exception only
            raise BackendError(f"ONNX Runtime cannot profile the graph '{graph}': {error}") from error
    return dict(node_events(events))


def node_events(events: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and description of each node that ran, from the events of a profile; ``dur`` is its microseconds."""
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            yield event["name"].removesuffix(KERNEL), event["args"] | {"dur": event["dur"]}


def products_of_event(node: Mapping[str, Any]) -> Counter[Product]:
    """Products of one node that ran."""
    name = node["op_name"]
    if name not in ("Conv", "MatMul", "FusedMatMul", "Gemm"):
        return Counter()
    first, second = (dimensions(shape) for shape in node["input_type_shape"][:2])
    out = dimensions(node["output_type_shape"][0])
    if name == "Conv":
        (batch, channels, *_), (outputs, inputs, *kernel) = first, second
        groups = channels // inputs
        return Counter({Product(outputs // groups, inputs * math.prod(kernel), batch * math.prod(out[2:])): groups})
    if name == "Gemm":
        return Counter({Product(out[0], math.prod(first) // out[0], out[1]): 1})
    return Counter({Product(out[-2], first[-1], out[-1]): math.prod(out[:-2])})


def dimensions(shape: Mapping[str, list[int]]) -> list[int]:
    """The profile gives ``{"float": [1, 96, 64, 64]}``."""
    return next(iter(shape.values()))

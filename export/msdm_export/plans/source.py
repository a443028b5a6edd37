"""The ONNX of a graph in the precision that a plan is built in, and its shapes fixed where the plan's are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import onnx

from msdm_engine.bundle.manifest import GraphSpec, Variant
from msdm_engine.bundle.reader import Bundle

#: Where `msdm-export precision` lists the nodes that stay float32, each rule with its reason.
KEPT = "float32"
#: Where `msdm-calibrate quantize` lists the quantised nodes, and the precision of all others.
QUANTIZED_NODES, REST = "quantized", "rest"


@dataclass(frozen=True)
class Source:
    """A graph as it is compiled.

    Args:
        graph: its name.
        spec: file, and tensors with the types of this precision.
        data: verified bytes of the ONNX file.
        graph_sha256: of the float32 graph that it stands for.
        kept: nodes that stay float32 -> the reason that the manifest gives.
        rest: precision of what is not quantised; of everything where nothing is.
        quantised: nodes of matrix work that read dequantised codes.
    """

    graph: str
    precision: str
    spec: GraphSpec | Variant
    data: bytes
    graph_sha256: str
    kept: dict[str, str]
    rest: str
    quantised: frozenset[str] = frozenset()

    @property
    def sha256(self) -> str:
        """Hash of the bytes that are compiled."""
        return hashlib.sha256(self.data).hexdigest()


def source_of(bundle: Bundle, graph: str, precision: str) -> Source:
    """The graph in this precision, which must be in the bundle: a plan's types are written down before it is built.

    Raises:
        BundleError: the bundle does not have the graph in this precision, or has it of another float32 graph.
    """
    spec = bundle.in_precision(precision)[graph]
    graph_sha256 = bundle.manifest.files[bundle.manifest.graphs[graph].file].sha256
    details = spec.details if isinstance(spec, Variant) else {}
    kept = {node: str(entry["reason"]) for entry in details.get(KEPT, []) for node in entry["nodes"]}
    rest = str(details.get(REST, precision))
    quantised = frozenset(str(entry["node"]) for entry in details.get(QUANTIZED_NODES, []))
    return Source(graph, precision, spec, bundle.contents[spec.file], graph_sha256, kept, rest, quantised)


def fixed_shapes(data: bytes, shapes: dict[str, tuple[int, ...]]) -> bytes:
    """The model with its inputs at these shapes, so that whoever parses it knows the shape of every tensor.

    A static plan is compiled from this: no shape is computed while it runs.
    """
    model = onnx.load_from_string(data)
    for value in model.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            dimension.Clear()
            dimension.dim_value = size
    # What was inferred for the dynamic shapes names dimensions that are gone.
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.Clear()
    fixed: bytes = model.SerializeToString()
    return fixed

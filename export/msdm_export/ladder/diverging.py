"""The first layer of a graph that leaves its tolerance: tensors of both models are marked as outputs and compared."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from msdm_export.conditions import Visit
from msdm_export.ladder.errors import Difference, Tolerance
from msdm_export.sessions import exposing, run_session, session_from_model

#: Tensors compared in one run: at 256 px and 48 channels, some 500 MB of intermediate values.
AT_ONCE = 64


@dataclass(frozen=True)
class Layer:
    """A node and how far its output is off.

    Args:
        relative: of the output, see :class:`Difference`; None where it is not finite.
        largest_expected: largest absolute value of the float32 graph's output there.
    """

    node: str
    op: str
    tensor: str
    relative: float | None
    largest_expected: float

    def __str__(self) -> str:
        if self.relative is None:
            return (
                f"{self.op} {self.node}: {self.tensor} is not finite, float32 reaches {self.largest_expected:.4g} there"
            )
        return f"{self.op} {self.node}: {self.tensor} differs by {self.relative:.2g} of its L2 norm"

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def first_diverging(
    source: onnx.ModelProto, model: onnx.ModelProto, tolerance: Tolerance, visit: Visit
) -> Layer | None:
    """The first node, in the graph's order, whose output is not finite or beyond ``factor u sqrt(L)`` of its norm.

    Args:
        source: the float32 graph.
        model: a graph whose tensors have the same names, with casts between.
        visit: the inputs on which both are run.

    Returns:
        None if no single layer is beyond its tolerance: the error has grown little by little.
    """
    made = {name for node in model.graph.node for name in node.output}
    floats = {v.name for v in source.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    nodes = [(node, name) for node in source.graph.node for name in node.output if name in floats & made]
    for start in range(0, len(nodes), AT_ONCE):
        chunk = nodes[start : start + AT_ONCE]
        names = [name for _, name in chunk]
        expected, found = (run_session(session_from_model(exposing(m, names)), visit.inputs) for m in (source, model))
        for node, name in chunk:
            difference = Difference.between(found[name], expected[name])
            depth = max(tolerance.depths[visit.graph].get(name, 0), 1)
            if difference.relative > tolerance.factor * tolerance.roundoff * math.sqrt(depth):
                relative = difference.relative if math.isfinite(difference.relative) else None
                return Layer(node.name, node.op_type, name, relative, float(np.abs(expected[name]).max(initial=0.0)))
    return None

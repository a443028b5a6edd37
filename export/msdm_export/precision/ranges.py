"""Ranges of every tensor, measured with the float32 graphs along real trajectories over all noise levels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from msdm_export.conditions import Arrays, Case, walk
from msdm_export.precision.formats import Format
from msdm_export.precision.graph import Graph
from msdm_export.sessions import exposing, run_session, session_from_model

#: A tensor fits if its largest value has this factor in hand: what is measured is a sample of what will be asked.
HEADROOM = 2.0


@dataclass
class Range:
    """What was seen of one tensor.

    Attributes:
        largest: largest absolute value.
        lost: largest relative L2 norm, over the visits, of what rounding to the format takes away without overflow.
        sigma: noise level of the visit in which the largest value was seen; None before the first step.
    """

    largest: float = 0.0
    lost: float = 0.0
    sigma: float | None = None

    def add(self, values: np.ndarray, half: Format, sigma: float | None) -> None:
        """Takes one more visit into account."""
        largest = float(np.abs(values).max(initial=0.0))
        if largest > self.largest:
            self.largest, self.sigma = largest, sigma
        inside = np.clip(values, -half.largest, half.largest)
        error = inside - inside.astype(half.dtype).astype(np.float32)
        # Squares of float32 leave float32's range.
        norm, off = (float(np.linalg.norm(part.ravel().astype(np.float64))) for part in (inside, error))
        if norm > 0:
            self.lost = max(self.lost, off / norm)


def measure_ranges(
    models: Mapping[str, onnx.ModelProto], half: Format, cases: Iterable[Case], table: np.ndarray
) -> dict[str, dict[str, Range]]:
    """Ranges of all float32 tensors of each graph, weights included.

    Args:
        models: float32 graphs with inferred types, by name.
        table: rows of the solver that the trajectories follow.
    """
    ranges: dict[str, dict[str, Range]] = {}
    sessions = {}
    for name, model in models.items():
        graph = Graph(model)
        ranges[name] = {}
        for constant in graph.constants.values():
            ranges[name].setdefault(constant.name, Range()).add(numpy_helper.to_array(constant), half, None)
        tensors = [tensor for node in graph.floating for tensor in node.output if graph.is_float(tensor)]
        sessions[name] = session_from_model(exposing(model, tensors))
    for case in cases:
        for visit in walk(lambda graph, inputs: run_session(sessions[graph], inputs), case, table):
            _take(ranges[visit.graph], visit.inputs, half, visit.sigma)
            _take(ranges[visit.graph], visit.outputs, half, visit.sigma)
    return ranges


def _take(ranges: dict[str, Range], arrays: Arrays, half: Format, sigma: float | None) -> None:
    for tensor, values in arrays.items():
        if values.dtype == np.float32 and values.size:
            ranges.setdefault(tensor, Range()).add(values, half, sigma)


@dataclass(frozen=True)
class Misfit:
    """Why a tensor does not fit the format; an overflow counts for all that touch it, see :mod:`.rules`."""

    overflows: bool
    found: str


def misfits(ranges: Mapping[str, Range], half: Format) -> dict[str, Misfit]:
    """Tensors that do not fit the format."""
    found = {}
    for tensor, seen in ranges.items():
        at = "" if seen.sigma is None else f" at noise level {seen.sigma:.4g}"
        if seen.largest * HEADROOM > half.largest:
            text = f"{tensor} reaches {seen.largest:.4g}{at}, the largest value is {half.largest:.6g}"
            found[tensor] = Misfit(True, text)
        elif seen.lost > half.roundoff:
            # Rounding of normal numbers loses at most the unit roundoff; more than that is underflow.
            text = f"{tensor} loses {seen.lost:.2g} of its L2 norm to underflow, normal numbers {half.roundoff:.2g}"
            found[tensor] = Misfit(False, text)
    return found

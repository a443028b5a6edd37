"""Tensors that `msdm-export precision` keeps float32 on any bundle, by two of its rules, told from a report alone.

``statistics``: the squares that a norm sums up, their mean, and the root that follows. ``sigma``: what is computed from
the schedule row alone. What does not fit float16 there does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msdm_calibration.marked import INPUT, REARRANGING, Activation
from msdm_engine.contract import ROW

STATISTICS, SIGMA = "statistics", "sigma"
_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare"})
_MATRIX = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_NEVER = _MATRIX | REARRANGING | {INPUT, "Concat", "Expand", "Gather", "Pad", "Resize", "Slice", "Split"}


def float32_rules(activations: Sequence[Activation]) -> dict[str, str]:
    """Tensor -> :data:`STATISTICS` or :data:`SIGMA`; the others are missing.

    Args:
        activations: all of one graph, in its order.
    """
    operands: dict[str, list[Activation]] = {}
    for activation in activations:
        for node, _, _ in activation.readers:
            operands.setdefault(node, []).append(activation)
    statistics = _statistics(activations, operands)
    return {
        **{activation.tensor: STATISTICS for activation in activations if activation.node in statistics},
        **dict.fromkeys(_from_row(activations, operands), SIGMA),
    }


def _statistics(activations: Sequence[Activation], operands: dict[str, list[Activation]]) -> set[str]:
    """Reductions; elementwise nodes that only they read; elementwise nodes that read nothing but their results."""
    found = {activation.node for activation in activations if activation.op in _REDUCTIONS}
    for activation in reversed(activations):
        readers = activation.readers
        if readers and activation.op not in _NEVER and all(node in found for node, _, _ in readers):
            found.add(activation.node)
    for activation in activations:
        given = operands.get(activation.node, [])
        if given and activation.op not in _NEVER and all(one.node in found for one in given):
            found.add(activation.node)
    return found


def _from_row(activations: Sequence[Activation], operands: dict[str, list[Activation]]) -> Iterator[str]:
    known = {ROW}
    for activation in activations:
        given = operands.get(activation.node, []) if activation.node else []
        if given and all(one.tensor in known for one in given):
            known.add(activation.tensor)
            yield activation.tensor

"""Which nodes of a graph stay float32, and why: rules on the graph's structure and on measured ranges, no names.

Everything else (convolutions, matrix products, norms, activations, softmax) runs in half.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto

from msdm_engine.contract import DENOISER_OUTPUTS, ROW
from msdm_export.precision.graph import Graph, is_movement
from msdm_export.precision.ranges import Misfit

MATRIX = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare"})

REASONS = {
    "sigma": "computed from the schedule row alone: a handful of values whose error every layer would carry",
    "update": "reaches the solver's state with no matrix work in between: guidance, preconditioning, linear update",
    "statistics": "a reduction over many values, what only it reads, and what follows from its result alone",
    "operands": "all its operands are float32: it is rounded once, at the matrix work that reads it",
    "range": "a value that it reads or writes does not fit",
}


@dataclass(frozen=True)
class Assignment:
    """What stays float32: node -> rule (a key of :data:`REASONS`), and for measured exceptions what was found."""

    float32: dict[str, str]
    measured: dict[str, str] = field(default_factory=dict)

    def exceptions(self) -> list[dict[str, object]]:
        """For the manifest: one entry a rule with its nodes, and one for each measured exception."""
        by_rule: dict[str, list[str]] = {}
        for node, rule in self.float32.items():
            if rule != "range":
                by_rule.setdefault(rule, []).append(node)
        entries: list[dict[str, object]] = [
            {"rule": rule, "reason": REASONS[rule], "nodes": nodes} for rule, nodes in by_rule.items()
        ]
        for node, found in self.measured.items():
            entries.append({"rule": "range", "reason": f"{REASONS['range']}: {found}", "nodes": [node]})
        return entries


def assign(model: onnx.ModelProto, misfits: Mapping[str, Misfit]) -> Assignment:
    """Decides which nodes stay float32.

    Args:
        model: a float32 graph with inferred types, nodes with unique names.
        misfits: tensors that do not fit the half format (:mod:`.ranges`).
    """
    graph = Graph(model)
    rules: dict[str, str] = {}
    for rule, nodes in (
        ("sigma", _sigma(graph)),
        ("update", _update(graph)),
        ("statistics", _statistics(graph)),
    ):
        for node in nodes:
            rules.setdefault(node.name, rule)
    measured = {}
    for node in graph.floating:
        if is_movement(node) or node.name in rules:
            continue
        found = _misfits_of(node, graph, misfits)
        if found:
            rules[node.name], measured[node.name] = "range", "; ".join(dict.fromkeys(found))
    for node in _late(graph, rules):
        rules[node.name] = "operands"
    return Assignment(rules, measured)


def _misfits_of(node: onnx.NodeProto, graph: Graph, misfits: Mapping[str, Misfit]) -> list[str]:
    """What the node reads or writes that does not fit.

    A summand or bias may underflow: what it loses is at most half of the smallest number of the format, and where the
    sum is as small as that, the sum itself does not fit.
    """
    summands = set(node.input) if node.op_type in {"Add", "Sub"} else set(node.input[2:])
    return [
        misfits[name].found
        for name in (*graph.operands(node), *node.output)
        if name in misfits and (misfits[name].overflows or name not in summands)
    ]


def _sigma(graph: Graph) -> Iterable[onnx.NodeProto]:
    """Nodes whose only input that varies is the schedule row."""
    origins: dict[str, frozenset[str]] = {value.name: frozenset({value.name}) for value in graph.model.graph.input}
    for node in graph.model.graph.node:
        union = frozenset[str]().union(*(origins.get(name, frozenset()) for name in node.input))
        origins.update(dict.fromkeys(node.output, union))
        if union == {ROW} and graph.is_floating(node):
            yield node


def _update(graph: Graph) -> Iterable[onnx.NodeProto]:
    """Backwards from the state until matrix work is met."""
    pending = [name for name in DENOISER_OUTPUTS if name in graph.producer]
    seen: set[str] = set()
    while pending:
        node = graph.producer.get(pending.pop())
        if node is None or node.name in seen or node.op_type in MATRIX or not graph.is_floating(node):
            continue
        seen.add(node.name)
        pending.extend(graph.operands(node))
        # What only moves the result of matrix work moves it in half: the same values in half the bytes.
        if not is_movement(node):
            yield node


def _statistics(graph: Graph) -> Iterable[onnx.NodeProto]:
    """Reductions; elementwise nodes that only they read; elementwise nodes that read nothing but their results."""
    found = {node.name for node in graph.floating if node.op_type in REDUCTIONS}
    for node in reversed(graph.floating):
        readers = graph.readers(node)
        only = bool(readers) and all(reader.name in found for reader in readers)
        if only and not is_movement(node) and node.op_type not in MATRIX:
            found.add(node.name)
    for node in graph.floating:
        operands = [graph.producer.get(name) for name in graph.operands(node) if name not in graph.constants]
        reduced = bool(operands) and all(producer is not None and producer.name in found for producer in operands)
        if reduced and node.op_type not in MATRIX and not is_movement(node):
            found.add(node.name)
    return [node for node in graph.floating if node.name in found]


def _late(graph: Graph, rules: Mapping[str, str]) -> Iterable[onnx.NodeProto]:
    """Elementwise nodes that read float32 only."""
    known = set(rules)
    single = {value.name for value in graph.model.graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    for node in graph.floating:
        varying = [name for name in graph.operands(node) if name not in graph.constants]
        # A value made from integers or booleans is exact in either type: it follows what reads it.
        late = bool(varying) and all(name in single for name in varying)
        if is_movement(node):
            if late:
                single.update(node.output)
        elif node.name in known:
            single.update(node.output)
        elif late and node.op_type not in MATRIX:
            single.update(node.output)
            yield node

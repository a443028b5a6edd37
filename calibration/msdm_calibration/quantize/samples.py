"""A first look: corners of the real inputs of every target at several noise levels, and the range of each channel.

Whether a scale or a migration is good is asked of the layer itself, on these samples; they are small and stay in
memory. A few trajectories give them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from msdm_calibration.quantize.subject import Subject
from msdm_calibration.trajectory import Sessions, Visit, batches
from msdm_engine.contract import DENOISER

#: Side of the corner that is kept of a feature map, in its own pixels.
SIDE = 16
#: Steps that are kept, spread over the trajectory.
STEPS = 8
#: Windows that are looked at. Windows of a calibration take turns among the fields, so these are of as many fields:
#: scales that are chosen on one stain alone clip another.
WINDOWS = 8


@dataclass
class Samples:
    """What was seen.

    Args:
        steps: of the kept inputs, ascending.
        inputs: tensor -> for each of the steps its values, [windows, C, h, w] or [windows, ..., C] float32.
        channel_largest: tensor -> [C] largest absolute value, whole maps, all steps.
    """

    steps: tuple[int, ...]
    inputs: dict[str, list[np.ndarray]] = field(default_factory=dict)
    channel_largest: dict[str, np.ndarray] = field(default_factory=dict)


def steps_kept(count: int) -> tuple[int, ...]:
    """First and last step, and others evenly between them."""
    return tuple(sorted({round(i) for i in np.linspace(0, count - 1, min(STEPS, count))}))


def look(subject: Subject) -> Samples:
    """Follows the first windows of the subject."""
    channel_axis = {target.tensor: target.channel_axis for target in subject.targets.found}
    samples = Samples(steps_kept(len(subject.sampling.table())))
    parts: dict[str, dict[int, list[np.ndarray]]] = {}
    backend = subject.marked([name for name in channel_axis if not _is_input(subject, name)])

    def see(visit: Visit) -> None:
        if visit.graph != DENOISER or visit.step is None:
            return
        given = visit.inputs | visit.more
        for name, axis in channel_axis.items():
            values = given[name]
            others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
            largest = np.abs(values).max(others)
            samples.channel_largest[name] = np.maximum(samples.channel_largest.get(name, 0.0), largest)
            if visit.step in samples.steps:
                corner = values[:, :, :SIDE, :SIDE] if values.ndim == 4 and axis == 1 else values
                parts.setdefault(name, {}).setdefault(visit.step, []).append(np.array(corner))

    for requests in batches(subject.requests[:WINDOWS], subject.batch):
        subject.follow(backend, requests, see)
    samples.inputs = {name: [np.concatenate(of[step]) for step in samples.steps] for name, of in parts.items()}
    return samples


def _is_input(subject: Subject, name: str) -> bool:
    return name in {value.name for value in subject.model.graph.input}


class Layer:
    """One target as a graph of its own, without bias: input and weight in, output out."""

    def __init__(self, subject: Subject, node_name: str) -> None:
        from onnx import TensorProto, helper

        node = next(node for node in subject.model.graph.node if node.name == node_name)
        kept = [a for a in node.attribute]
        single = helper.make_node(node.op_type, ["x", "w"], ["y"])
        single.attribute.extend(kept)
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xwy"]
        graph = helper.make_graph([single], "layer", values[:2], values[2:])
        opset = subject.model.opset_import[0].version
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        self._session = Sessions({"layer": model.SerializeToString()}, threads=subject.threads)

    def __call__(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The output without bias."""
        return self._session.run("layer", {"x": x.astype(np.float32), "w": weight.astype(np.float32)})["y"]

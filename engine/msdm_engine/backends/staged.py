"""The plain ``run`` of a backend that binds buffers: arrays in and out through pinned memory, one run at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from msdm_engine.bundle.graph_shapes import Shape, dimensions_of
from msdm_engine.bundle.manifest import GraphSpec, Variant
from msdm_engine.devices.contract import Buffer, Work
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.cuda_stream import CudaStream
from msdm_engine.errors import DeviceError

#: Bindings that are kept, a graph and shape each; the oldest is freed for another.
MAX_KEPT = 16

#: Shapes of the outputs -> a graph's buffers.
MakeBuffers = Callable[[dict[str, Shape]], Mapping[str, Buffer]]
#: Graph, shapes of its inputs, and what makes its buffers -> the work.
Bind = Callable[[str, dict[str, Shape], MakeBuffers], Work]


@dataclass(frozen=True)
class Binding:
    """A graph at one shape: its buffers on both sides, and the work between them."""

    work: Work
    on_device: dict[str, Buffer]
    on_host: dict[str, Buffer]

    def free(self) -> None:
        """Gives the buffers back."""
        for buffer in (*self.on_device.values(), *self.on_host.values()):
            buffer.free()


class StagedRuns:
    """Runs graphs on a stream of its own and waits for the end of each."""

    def __init__(self, device: CudaDevice, graphs: Mapping[str, GraphSpec | Variant], bind: Bind) -> None:
        self._device, self._graphs, self._bind = device, graphs, bind
        self.stream: CudaStream = device.stream("run")
        self._kept: dict[tuple[str, tuple[Shape, ...]], Binding] = {}

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raises DeviceError for an input of another type, RequestError for a shape that the graph does not have."""
        spec = self._graphs[graph]
        shapes = {name: value.shape for name, value in inputs.items()}
        dimensions_of(graph, spec.inputs, shapes)
        for tensor in spec.inputs:
            if inputs[tensor.name].dtype != np.dtype(tensor.dtype):
                raise DeviceError(
                    f"'{tensor.name}' of the graph '{graph}' is {inputs[tensor.name].dtype}",
                    note=f"it takes {tensor.dtype}",
                )
        key = graph, tuple(shapes[tensor.name] for tensor in spec.inputs)
        if key not in self._kept:
            self._kept[key] = self._bound(graph, spec, shapes)
        binding = self._kept[key] = self._kept.pop(key)  # the newest
        for tensor in spec.inputs:
            binding.on_host[tensor.name].array()[...] = inputs[tensor.name]
            self.stream.copy(binding.on_device[tensor.name], binding.on_host[tensor.name])
        self.stream.submit(binding.work)
        for tensor in spec.outputs:
            self.stream.copy(binding.on_host[tensor.name], binding.on_device[tensor.name])
        self.stream.synchronize()
        return {tensor.name: binding.on_host[tensor.name].array().copy() for tensor in spec.outputs}

    def close(self) -> None:
        """Frees all buffers, where the device has not done so; the work goes with them."""
        if not self._device.closed:
            for binding in self._kept.values():
                binding.free()
        self._kept.clear()

    def _bound(self, graph: str, spec: GraphSpec | Variant, shapes: dict[str, Shape]) -> Binding:
        while len(self._kept) >= MAX_KEPT:
            self._kept.pop(next(iter(self._kept))).free()
        on_device: dict[str, Buffer] = {}
        on_host: dict[str, Buffer] = {}
        with contextlib.ExitStack() as made:  # what was made is freed if binding fails

            def make(outputs: dict[str, Shape]) -> dict[str, Buffer]:
                for tensor in (*spec.inputs, *spec.outputs):
                    what = f"{graph}.{tensor.name}", (shapes | outputs)[tensor.name], np.dtype(tensor.dtype)
                    on_device[tensor.name] = self._device.buffer(*what)
                    made.callback(on_device[tensor.name].free)
                    on_host[tensor.name] = self._device.buffer(*what, "host")
                    made.callback(on_host[tensor.name].free)
                return on_device

            work = self._bind(graph, shapes, make)
            made.pop_all()
        return Binding(work, on_device, on_host)

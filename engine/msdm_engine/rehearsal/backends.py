"""Backends that put another backend's graphs on a simulated device, or on a rehearsed GPU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msdm_engine.backends import Backend
from msdm_engine.bundle.reader import Bundle
from msdm_engine.devices.contract import Buffer, Device, Stream, Work
from msdm_engine.devices.cuda_memory import view_of_host
from msdm_engine.pipeline.bound import on_copies, specs_of
from msdm_engine.rehearsal.cuda import OK, RehearsedCuda


class SimulatedBackend:
    """Binds to the buffers of the simulated device, as a GPU's backend does to those of the GPU."""

    device_kind = "simulated"

    def __init__(self, backend: Backend, bundle: Bundle) -> None:
        self.identity, self.run, self.close = backend.identity, backend.run, backend.close
        self._backend, self._specs = backend, specs_of(bundle, backend)

    def bind(self, graph: str, device: Device, buffers: Mapping[str, Buffer]) -> Work:
        """See :class:`msdm_engine.backends.DeviceBackend`."""
        return on_copies(self._backend, self._specs, graph, buffers, graph)


class RehearsedBackend:
    """Graphs are kernels of the rehearsed GPU, computed by another backend when their turn comes."""

    device_kind = "cuda"

    def __init__(self, backend: Backend, bundle: Bundle, runtime: RehearsedCuda) -> None:
        self.identity, self.run, self.close = backend.identity, backend.run, backend.close
        self._specs, self._runtime = specs_of(bundle, backend), runtime

    def bind(self, graph: str, device: Device, buffers: Mapping[str, Buffer]) -> Work:
        """See :class:`msdm_engine.backends.DeviceBackend`."""
        spec = self._specs[graph]
        reads, writes = ({t.name: buffers[t.name] for t in side} for side in (spec.inputs, spec.outputs))

        def compute() -> int:
            outputs = self.run(graph, {name: _view(buffer).copy() for name, buffer in reads.items()})
            for name, buffer in writes.items():
                _view(buffer)[...] = outputs[name]
            return OK

        def run(stream: Stream) -> None:
            answer = self._runtime.enqueue(stream.handle, compute)
            assert answer == OK, f"stream '{stream.name}' is none of the rehearsed GPU"

        return Work(graph, tuple(reads.values()), tuple(writes.values()), run)


def _view(buffer: Buffer) -> np.ndarray:
    return view_of_host(buffer.pointer, buffer.shape, buffer.dtype)

"""A graph as work for a device: bound by its backend where that can, else run on copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from msdm_engine.backends import Backend
from msdm_engine.bundle.manifest import GraphSpec, Variant
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import FLOAT32
from msdm_engine.devices.contract import Buffer, Device, Stream, Work
from msdm_engine.errors import DeviceError
from msdm_engine.pipeline.checks import check_output

Specs = Mapping[str, GraphSpec | Variant]


def specs_of(bundle: Bundle, backend: Backend) -> Specs:
    """Tensors of the graphs in the precision that the backend runs."""
    return bundle.in_precision(backend.identity.get("precision", FLOAT32))


def bind(backend: Backend, specs: Specs, graph: str, device: Device, buffers: Mapping[str, Buffer], name: str) -> Work:
    """The graph on these buffers, by the manifest's names of its tensors.

    Args:
        name: of the work.

    Raises:
        DeviceError: neither is the device's memory the backend's, nor can the host see it.
    """
    if getattr(backend, "device_kind", "none") == ("host" if device.unified else device.kind):
        return replace(backend.bind(graph, device, buffers), name=name)  # type: ignore[attr-defined]
    if not device.unified:
        raise DeviceError(
            f"the backend {backend.identity['backend']} does not work in the memory of the device '{device.kind}'"
        )
    return on_copies(backend, specs, graph, buffers, name)


def on_copies(backend: Backend, specs: Specs, graph: str, buffers: Mapping[str, Buffer], name: str) -> Work:
    """The graph run by a backend that knows no buffers: its inputs are copied, and so are its outputs.

    Raises:
        BackendError: when the work runs, if the graph gives out something else than the manifest says.
    """
    reads = {tensor.name: buffers[tensor.name] for tensor in specs[graph].inputs}
    writes = {tensor.name: buffers[tensor.name] for tensor in specs[graph].outputs}

    def run(stream: Stream) -> None:
        # The backend may keep what it is given, and these buffers are soon written again.
        outputs = backend.run(graph, {name: buffer.array().copy() for name, buffer in reads.items()})
        for name, buffer in writes.items():
            value = check_output(graph, name, outputs.get(name), buffer.shape)
            np.copyto(buffer.array(), value, casting="same_kind")

    return Work(name, tuple(reads.values()), tuple(writes.values()), run)

"""Backends run a bundle's graphs. All keep one contract, :class:`Backend`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from msdm_engine.bundle.plan_spec import PLAN_BACKENDS
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import FLOAT32
from msdm_engine.devices.contract import Buffer, Device, Work
from msdm_engine.errors import RequestError, nearest

BACKENDS = ("onnxruntime", "openvino", *PLAN_BACKENDS)


class Backend(Protocol):
    """Runs graphs by name: named arrays in, named arrays out."""

    #: what decides the bits of a result: backend, version, device, threads
    identity: dict[str, str]

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one graph; inputs and outputs as the manifest lists them."""
        ...

    def close(self) -> None:
        """Releases sessions and memory; further calls are errors."""
        ...


class DeviceBackend(Backend, Protocol):
    """A backend whose graphs run on a device's streams."""

    #: of the devices that it binds to: ``host`` or ``cuda``
    device_kind: str

    def bind(self, graph: str, device: Device, buffers: Mapping[str, Buffer]) -> Work:
        """The graph bound to the buffers of its inputs and outputs, by their names in the manifest.

        Everything that can fail or take long (shapes, types, activation memory, the plan for these shapes) does so
        here and not when the work runs. Pieces of work share activation memory where their graphs are of one stage
        (:data:`msdm_engine.backends.activation.STAGES`): a pipeline submits a stage to one stream only.
        """
        ...


@runtime_checkable
class StatesActivation(Protocol):
    """A backend that knows what its graphs need inside; for others a bound is assumed
    (:data:`msdm_engine.pipeline.memory.ACTIVATION_FACTOR`).
    """

    def activation_bytes(self, graph: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Memory that the graph needs inside for these shapes of its inputs and outputs."""
        ...


def runs_on_cpu(name: str) -> bool:
    """Whether a backend of this name computes on the host's cores, where batches may run side by side."""
    runtime, _, words = name.partition(":")
    return runtime in ("onnxruntime", "openvino") and words.partition(",")[0].lower() in ("", "cpu")


def open_backend(
    name: str, bundle: Bundle, *, threads: int = 0, parallel: int = 1, precision: str = FLOAT32
) -> Backend:
    """Opens the backend that was asked for, or fails; nothing is substituted.

    Args:
        name: one of :data:`BACKENDS`; ``onnxruntime`` with a provider behind a colon, ``openvino`` with a device, see
            :mod:`msdm_engine.backends.providers` and :mod:`msdm_engine.backends.openvino`.
        threads: CPU threads of a graph; 0: one for each core. Plans have none.
        parallel: how many graphs will run at the same time on the CPU, each on threads of its own.
        precision: of the graphs or plans; the bundle has it, or it is an error.
    """
    runtime, colon, words = name.partition(":")
    if runtime not in BACKENDS or (colon and not words):
        raise RequestError(f"unknown backend '{name}'", note=nearest(name, BACKENDS))
    if runtime == "openvino":
        from msdm_engine.backends.openvino import OpenVinoBackend, parse_options

        return OpenVinoBackend(
            bundle, threads=threads, parallel=parallel, precision=precision, options=parse_options(words)
        )
    if runtime in PLAN_BACKENDS:
        if colon:
            raise RequestError(f"backend '{name}'", note=f"'{runtime}' has no execution providers")
        if threads:
            raise RequestError(f"{threads} threads for the backend '{name}'", note="plans run on a GPU; leave it out")
        from msdm_engine.backends.tensorrt import TensorRTBackend

        return TensorRTBackend(bundle, runtime, precision=precision)
    from msdm_engine.backends.onnxruntime import OnnxRuntimeBackend
    from msdm_engine.backends.providers import parse_provider

    provider = parse_provider(words, bundle.manifest.providers)
    return OnnxRuntimeBackend(bundle, threads=threads, parallel=parallel, precision=precision, provider=provider)

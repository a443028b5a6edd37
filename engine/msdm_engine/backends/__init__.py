"""Backends run a bundle's graphs. All keep one contract, :class:`Backend`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from msdm_engine.bundle import Bundle
from msdm_engine.contract import FLOAT32
from msdm_engine.devices.contract import Buffer, Device, Work
from msdm_engine.errors import RequestError, nearest

BACKENDS = ("onnxruntime", "openvino")


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

    def bind(self, graph: str, device: Device, buffers: Mapping[str, Buffer]) -> Work:
        """The graph bound to the buffers of its inputs and outputs, by their names in the manifest.

        Everything that can fail or take long (shapes, types, activation memory, the plan for these shapes) does so
        here and not when the work runs. Two pieces of work of one graph may share activation memory: a pipeline
        submits a graph to one stream only.
        """
        ...


def open_backend(name: str, bundle: Bundle, *, threads: int = 0, precision: str = FLOAT32) -> Backend:
    """Opens the backend that was asked for, or fails; nothing is substituted.

    Args:
        name: one of :data:`BACKENDS`, with a provider or device behind a colon: see
            :mod:`msdm_engine.backends.providers` and :mod:`msdm_engine.backends.openvino`.
        threads: CPU threads of a graph; 0: one for each core.
        precision: of the graphs; the bundle has it, or it is an error.
    """
    runtime, colon, words = name.partition(":")
    if runtime not in BACKENDS or (colon and not words):
        raise RequestError(f"unknown backend '{name}'", note=nearest(name, BACKENDS))
    if runtime == "openvino":
        from msdm_engine.backends.openvino import OpenVinoBackend, parse_options

        return OpenVinoBackend(bundle, threads=threads, precision=precision, options=parse_options(words))
    from msdm_engine.backends.onnxruntime import OnnxRuntimeBackend
    from msdm_engine.backends.providers import parse_provider

    provider = parse_provider(words, bundle.manifest.providers)
    return OnnxRuntimeBackend(bundle, threads=threads, precision=precision, provider=provider)

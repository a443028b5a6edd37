"""Backends run a bundle's graphs. All keep one contract, :class:`Backend`."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from msdm_engine.bundle import Bundle
from msdm_engine.errors import RequestError, nearest
from msdm_engine.manifest import FLOAT32

BACKENDS = ("onnxruntime",)


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


def open_backend(name: str, bundle: Bundle, *, threads: int = 0, precision: str = FLOAT32) -> Backend:
    """Opens the backend that was asked for, or fails; nothing is substituted.

    Args:
        name: one of :data:`BACKENDS`.
        threads: CPU threads of a graph; 0: one for each core.
        precision: of the graphs; the bundle has it, or it is an error.
    """
    if name not in BACKENDS:
        raise RequestError(f"unknown backend '{name}'", note=nearest(name, BACKENDS))
    from msdm_engine.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, threads=threads, precision=precision)

"""TensorRT or TensorRT for RTX, with Polygraphy on the same one: imported when a build asks for it, or an error.

Polygraphy decides once, when it is imported, which of the two it drives; so a process builds with one of them.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass, field
from typing import Any

from msdm_engine.backends.tensorrt_module import HOW, MODULES, logger_of
from msdm_engine.bundle.plan_spec import PLAN_BACKENDS
from msdm_engine.errors import BackendError, RequestError, nearest


@dataclass(frozen=True)
class Toolchain:
    """An imported TensorRT and the messages of its builder."""

    backend: str
    trt: Any
    logger: Any
    messages: list[str] = field(default_factory=list)

    @property
    def version(self) -> str:
        """Version of TensorRT; plans are loaded by exactly this one."""
        return str(self.trt.__version__)

    @property
    def rtx(self) -> bool:
        """Whether plans are compiled for a capability named, on any machine."""
        return self.backend == "tensorrt-rtx"


def open_toolchain(backend: str) -> Toolchain:
    """Imports what the backend builds with.

    Raises:
        RequestError: an unknown backend.
        BackendError: TensorRT or Polygraphy is not installed, or Polygraphy already drives the other TensorRT.
    """
    if backend not in PLAN_BACKENDS:
        raise RequestError(f"unknown backend '{backend}' to build plans for", note=nearest(backend, PLAN_BACKENDS))
    rtx = backend == "tensorrt-rtx"
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = str(int(rtx))
    try:
        trt = importlib.import_module(MODULES[backend])
        config: Any = importlib.import_module("polygraphy.config")
    except ImportError as error:
        raise BackendError(
            f"{PLAN_BACKENDS[backend]} cannot be imported: {error}", note="plans are built with it", hint=HOW[backend]
        ) from error
    if "polygraphy.backend.trt" not in sys.modules:
        config.USE_TENSORRT_RTX = rtx  # Polygraphy was imported before, and has not chosen yet
    if bool(config.USE_TENSORRT_RTX) != rtx:
        raise BackendError(
            f"this process already builds with {PLAN_BACKENDS['tensorrt' if rtx else 'tensorrt-rtx']}",
            note="Polygraphy drives one TensorRT in a process",
            hint=f"start a new process with POLYGRAPHY_USE_TENSORRT_RTX={int(rtx)}",
        )
    messages: list[str] = []
    return Toolchain(backend, trt, logger_of(trt, messages), messages)

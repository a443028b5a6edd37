"""TensorRT or TensorRT for RTX, with Polygraphy on the same one: imported when a build asks for it, or an error.

Polygraphy decides once, when it is imported, which of the two it drives; so a process builds with one of them.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass, field
from typing import Any

from msdm_engine.errors import BackendError, RequestError, nearest
from msdm_engine.plan_spec import PLAN_BACKENDS

#: Which module is imported, which extra of msdm brings it, and where pip finds it.
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
HOW = {
    "tensorrt": "pip install 'msdm[tensorrt]' with NVIDIA's package index added (--extra-index-url): it lies there",
    "tensorrt-rtx": "pip install 'msdm[rtx]' (from the Python package index; needs no GPU)",
}
#: Messages of the builder that are kept for the report of a failure.
KEPT_MESSAGES = 30


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
    return Toolchain(backend, trt, _logger(trt, messages), messages)


_LOGGERS: dict[str, Any] = {}


def _logger(trt: Any, messages: list[str]) -> Any:
    """TensorRT keeps the first logger of a process for good, so there is one, and it writes where it is told."""
    name = trt.__name__
    if name not in _LOGGERS:

        class Logger(trt.ILogger):
            """Keeps what is worth reading, and prints nothing."""

            sink: list[str] = messages

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.VERBOSE, trt.ILogger.INFO):
                    return
                self.sink.append(f"[{str(severity).rpartition('.')[2]}] {message}")
                del self.sink[:-KEPT_MESSAGES]

        _LOGGERS[name] = Logger()
    _LOGGERS[name].sink = messages
    return _LOGGERS[name]

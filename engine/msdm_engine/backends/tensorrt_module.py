"""TensorRT and TensorRT for RTX: which module is imported, what only one of them has, and their one logger."""

from __future__ import annotations

import importlib
from typing import Any

from msdm_engine.bundle.plan_spec import PLAN_BACKENDS
from msdm_engine.errors import BackendError

#: Which module is imported, which extra of msdm brings it, and where pip finds it.
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
HOW = {
    "tensorrt": "pip install 'msdm[tensorrt]' with NVIDIA's package index added (--extra-index-url): it lies there",
    "tensorrt-rtx": "pip install 'msdm[rtx]' (from the Python package index; needs no GPU)",
}
#: Messages that are kept for the report of a failure, and how many of them it shows.
KEPT_MESSAGES, SHOWN_MESSAGES = 30, 8


def import_tensorrt(backend: str) -> Any:
    """The module of a backend of :data:`PLAN_BACKENDS`.

    Raises:
        BackendError: it is not installed, or its libraries cannot be loaded; names the extra.
    """
    try:
        return importlib.import_module(MODULES[backend])
    except (ImportError, OSError) as error:  # a wheel whose libraries are missing is an OSError
        raise BackendError(
            f"{PLAN_BACKENDS[backend]} cannot be imported: {error}",
            hint=f"{HOW[backend]}; `msdm-engine doctor` says what is there",
        ) from error


_LOGGERS: dict[int, Any] = {}


def logger_of(trt: Any, messages: list[str]) -> Any:
    """The logger, which writes to ``messages`` from now on.

    TensorRT keeps the first logger of a process for good, so there is one for each module.
    """
    if id(trt) not in _LOGGERS:

        class Logger(trt.ILogger):
            """Keeps what is worth reading, and prints nothing."""

            sink: list[str] = messages

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.VERBOSE, trt.ILogger.INFO):
                    return
                self.sink.append(f"[{str(severity).rpartition('.')[2]}] {message}")
                del self.sink[:-KEPT_MESSAGES]

        _LOGGERS[id(trt)] = Logger()
    _LOGGERS[id(trt)].sink = messages
    return _LOGGERS[id(trt)]


def log_of(messages: list[str]) -> str:
    """The end of TensorRT's own log, for the note of an error."""
    return "its log ends: " + " | ".join(messages[-SHOWN_MESSAGES:]) if messages else "its log is empty"

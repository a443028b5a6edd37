"""ONNX Runtime: on the CPU the embedded default, or with any of its execution providers."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from msdm_engine.backends.onnx_external import check_is_whole
from msdm_engine.backends.providers import Provider, check_is_used, choose
from msdm_engine.bundle import Bundle
from msdm_engine.contract import FLOAT32
from msdm_engine.errors import BackendError, RequestError
from msdm_engine.manifest import GraphSpec, Variant

MAX_THREADS = 1024
DEFAULT = Provider()
BF16 = "bf16"


def _hint(precision: str) -> str:
    if precision == BF16:
        return "ONNX Runtime's CPU has no bfloat16 arithmetic: use --precision float32 or fp16 there"
    return "export the bundle again, or install a newer onnxruntime"


class OnnxRuntimeBackend:
    """One session for each graph, made from verified bytes."""

    def __init__(
        self, bundle: Bundle, *, threads: int = 0, precision: str = FLOAT32, provider: Provider = DEFAULT
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(
                "the backend 'onnxruntime' is not installed", hint="pip install 'msdm[cpu]' (or 'msdm[gpu]')"
            ) from error
        if not 0 <= threads <= MAX_THREADS:
            raise RequestError(f"{threads} threads", note=f"0 (one for each core) to {MAX_THREADS}")
        threads = threads or os.cpu_count() or 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.identity = {
            "backend": "onnxruntime",
            "version": onnxruntime.__version__,
            "provider": provider.name,
            "threads": str(threads),
            "precision": precision,
        }
        if provider.options:
            self.identity["provider_options"] = provider.shown
        chosen = choose(onnxruntime, options, provider)
        self._sessions: dict[str, Any] = {}
        for name, spec in bundle.in_precision(precision).items():
            graph = bundle.contents[spec.file]
            check_is_whole(name, graph)
            try:
                # Left to itself, a session that fails tries again with other providers, and prints that it does.
                session = onnxruntime.InferenceSession(graph, options, enable_fallback=0, **chosen)
            except Exception as error:  # ONNX Runtime raises its own classes, derived from Exception only
                raise BackendError(
                    f"ONNX Runtime {onnxruntime.__version__} cannot load the graph '{name}': {error}",
                    hint=_hint(precision),
                ) from error
            check_is_used(session, provider, name)
            self._check(name, session, spec)
            self._sessions[name] = session

    @staticmethod
    def _check(name: str, session: Any, spec: GraphSpec | Variant) -> None:
        for side, found in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
            try:
                names, listed = [t.name for t in found], [t.name for t in getattr(spec, side)]
            except UnicodeDecodeError as error:
                raise BackendError(
                    f"graph '{name}' has {side} whose names are no text: {error}", hint="export the bundle again"
                ) from error
            if names != listed:
                raise BackendError(
                    f"graph '{name}' has the {side} {names}, the manifest lists {listed}",
                    hint="export the bundle again",
                )

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one graph; raises BackendError with ONNX Runtime's reason."""
        session = self._sessions.get(graph)
        if session is None:
            raise BackendError(f"graph '{graph}' is not open", note=f"open: {', '.join(self._sessions) or 'none'}")
        names = [output.name for output in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:  # as above
            raise BackendError(f"ONNX Runtime failed in the graph '{graph}': {error}") from error

    def close(self) -> None:
        """Drops the sessions."""
        self._sessions.clear()

"""ONNX Runtime: on the CPU the embedded default, or with any of its execution providers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from msdm_engine.backends.onnx_binding import bind_session
from msdm_engine.backends.onnx_external import check_is_whole
from msdm_engine.backends.providers import CPU, Provider, check_is_used, choose
from msdm_engine.bundle.manifest import GraphSpec, Variant
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import FLOAT32
from msdm_engine.cores import cores
from msdm_engine.devices.contract import Buffer, Device, Stream, Work
from msdm_engine.errors import BackendError, DeviceError, DeviceMemoryError, RequestError

MAX_THREADS = 1024
DEFAULT = Provider()
#: What its allocators say when there is no more memory: on the host, and on a GPU.
OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate memory", "out of memory", "CUDA failure 2")
BF16 = "bf16"
#: Providers that read and write the host's memory; and those of an NVIDIA GPU, on a stream that they can be given.
ON_HOST = (CPU, "OpenVINOExecutionProvider")
ON_CUDA = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")


def _hint(precision: str) -> str:
    if precision == BF16:
        return "ONNX Runtime's CPU has no bfloat16 arithmetic: use --precision float32 or fp16 there"
    return "export the bundle again, or install a newer onnxruntime"


def _on_stream(provider: Provider, stream: int) -> Provider:
    """The provider with its work on a stream that is ours."""
    if provider.name not in ON_CUDA:
        raise RequestError(f"{provider.name} takes no stream", note=f"these do: {', '.join(ON_CUDA)}")
    mine = {"has_user_compute_stream": "1", "user_compute_stream": str(stream)}
    return Provider(provider.name, provider.options | mine)


class OnnxRuntimeBackend:
    """One session for each graph, made from verified bytes.

    Args:
        threads: of a graph, its caller's included; 0: one for each core.
        parallel: how many graphs run at the same time on the CPU.
        stream: handle of the CUDA stream that the provider works on; 0: its own. Work that :meth:`bind` returns is
            then for this stream alone, and does not wait for its own end.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 0,
        parallel: int = 1,
        precision: str = FLOAT32,
        provider: Provider = DEFAULT,
        stream: int = 0,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(
                "the backend 'onnxruntime' is not installed", hint="pip install 'msdm[cpu]' (or 'msdm[gpu]')"
            ) from error
        if not 0 <= threads <= MAX_THREADS:
            raise RequestError(f"{threads} threads", note=f"0 (one for each core) to {MAX_THREADS}")
        threads = threads or cores()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        if threads > 1 and parallel > 1:
            # Its threads would spin between two operators, on cores that other batches compute on.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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
        # Any other provider may have memory of its own, of which only `run`, which copies, knows.
        self.device_kind = "cuda" if provider.name in ON_CUDA else "host" if provider.name in ON_HOST else "none"
        self._stream, self._provider = stream, provider
        chosen = choose(onnxruntime, options, _on_stream(provider, stream) if stream else provider)
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
        session = self._session(graph)
        names = [output.name for output in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:  # as above
            raise _failed(graph, error) from error

    def bind(self, graph: str, device: Device, buffers: Mapping[str, Buffer]) -> Work:
        """See :class:`msdm_engine.backends.DeviceBackend`: running the work allocates no output and copies nothing.

        What the graph needs inside comes from the session's arena, which grows in the first run and is kept.

        Raises:
            BackendError: the graph is not open, or ONNX Runtime refuses a buffer.
            DeviceError: the memory of ``device`` is not the provider's, or a buffer is missing or of another type.
        """
        session = self._session(graph)
        if self.device_kind != ("cuda" if device.kind == "cuda" else "host"):
            raise DeviceError(
                f"{self._provider.name} does not work in the memory of a device of kind '{device.kind}'",
                note=f"it works in that of the kind '{self.device_kind}'",
            )
        cuda = self.device_kind == "cuda"
        place = ("cuda", int(self._provider.options.get("device_id", 0))) if cuda else ("cpu", 0)
        binding, reads, writes = bind_session(session, graph, place, buffers)
        options = self._run_options()

        def run(stream: Stream) -> None:
            if self._stream and stream.handle != self._stream:
                raise DeviceError(f"the graph '{graph}' is submitted to '{stream.name}', not to its provider's stream")
            try:
                session.run_with_iobinding(binding, options)
            except Exception as error:  # as above
                raise _failed(graph, error) from error

        # On a GPU ONNX Runtime may allocate and wait inside, which no capture can record.
        return Work(graph, reads, writes, run, capturable=not cuda)

    def _run_options(self) -> Any:
        import onnxruntime

        options = onnxruntime.RunOptions()
        if self._stream:  # the stream's own order is enough
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return options

    def _session(self, graph: str) -> Any:
        session = self._sessions.get(graph)
        if session is None:
            raise BackendError(f"graph '{graph}' is not open", note=f"open: {', '.join(self._sessions) or 'none'}")
        return session

    def close(self) -> None:
        """Drops the sessions."""
        self._sessions.clear()


def _failed(graph: str, error: Exception) -> BackendError:
    """ONNX Runtime has one class for all; what its allocators say tells a lack of memory from the rest."""
    if any(words in str(error) for words in OUT_OF_MEMORY):
        return DeviceMemoryError(f"no memory left in the graph '{graph}': {error}", hint="a smaller --batch")
    return BackendError(f"ONNX Runtime failed in the graph '{graph}': {error}")

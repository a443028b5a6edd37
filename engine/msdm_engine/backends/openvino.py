"""OpenVINO: the fastest way here to run the graphs on an x86 CPU; an extra (``pip install 'msdm[openvino]'``).

Named ``openvino`` or ``openvino:DEVICE,OPTION=VALUE,...``, as in ``openvino:CPU,inference_precision=bf16``. Left to
itself OpenVINO computes in bfloat16 where a processor can; here arithmetic is float32 unless the name says otherwise,
and what was used is part of the backend's identity.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np

from msdm_engine.backends.onnx_external import check_is_whole
from msdm_engine.backends.openvino_rewrites import REWRITES, join_linear_layers, split_convolutions
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import FLOAT32, TEXT_ENCODER
from msdm_engine.cores import cores
from msdm_engine.devices.contract import Buffer, Device, Stream, Work
from msdm_engine.errors import BackendError, DeviceError, RequestError, nearest

#: Compiled shapes kept; a set has as many as it has sizes, times one or two for the guidance interval.
MAX_COMPILED = 32
#: Options of the backend's name -> OpenVINO's properties. Threads and streams are the engine's own options.
OPTIONS = {
    "inference_precision": "INFERENCE_PRECISION_HINT",
    "cpu_pinning": "ENABLE_CPU_PINNING",
    "hyper_threading": "ENABLE_HYPER_THREADING",
    "cache_dir": "CACHE_DIR",
    "perf_count": "PERF_COUNT",
}
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class OpenVinoOptions:
    """Device by OpenVINO's name (``CPU``, ``GPU``), and options by the names of :data:`OPTIONS`."""

    device: str = "CPU"
    options: dict[str, str] = field(default_factory=lambda: {"inference_precision": "f32"})

    @property
    def shown(self) -> str:
        """Options as in the backend's name, in alphabetical order."""
        return ",".join(f"{key}={value}" for key, value in sorted(self.options.items()))


def parse_options(words: str) -> OpenVinoOptions:
    """What stands behind the colon of the backend's name; "" for the CPU in float32.

    Raises:
        RequestError: not of the form, or an option that does not exist.
    """
    if not words:
        return OpenVinoOptions()
    device, *pairs = words.split(",")
    options = dict(OpenVinoOptions().options)
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in OPTIONS:
            note = nearest(key, OPTIONS) if equals else "OPTION=VALUE, separated by commas"
            raise RequestError(f"option '{pair}' of the backend 'openvino'", note=note)
        options[key] = value
    return OpenVinoOptions(device, options)


class OpenVinoBackend:
    """Compiles a graph for each shape that it meets: static shapes are faster, and a set has few.

    Args:
        threads: CPU threads of one graph; 0: one for each core.
        parallel: how many graphs run at the same time, each on ``threads`` threads of its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 0,
        parallel: int = 1,
        precision: str = FLOAT32,
        options: OpenVinoOptions | None = None,
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise BackendError(
                "the backend 'openvino' is not installed", hint="pip install 'msdm[openvino]'"
            ) from error
        options = options or OpenVinoOptions()
        threads = threads or cores()
        self._openvino, self._core = openvino, openvino.Core()
        known = [*self._core.available_devices]
        if options.device not in known:
            raise BackendError(
                f"OpenVINO {openvino.__version__} has no device '{options.device}'", note=f"it has {', '.join(known)}"
            )
        self._device = options.device
        # What a GPU of OpenVINO's reads and writes is memory of its own, of which only `run`, which copies, knows.
        self.device_kind = "host" if options.device == "CPU" else "none"
        self._properties: dict[str, Any] = {OPTIONS[key]: value for key, value in options.options.items()}
        if options.device == "CPU":
            self._properties |= {"INFERENCE_NUM_THREADS": threads * parallel, "NUM_STREAMS": parallel}
        self.identity = {
            "backend": "openvino",
            "version": openvino.__version__,
            "provider": options.device,
            "threads": str(threads),
            "precision": precision,
            "provider_options": options.shown,
            "rewrites": REWRITES,
        }
        self._graphs: dict[str, Any] = {}
        self._outputs: dict[str, list[str]] = {}
        for name, spec in bundle.in_precision(precision).items():
            graph = bundle.contents[spec.file]
            check_is_whole(name, graph)
            self._graphs[name], self._outputs[name] = self._read(name, graph), [tensor.name for tensor in spec.outputs]
            self._check(name, [tensor.name for tensor in spec.inputs])
        self._compiled: OrderedDict[tuple[str, Shapes], Any] = OrderedDict()
        self._idle: dict[tuple[str, Shapes], list[Any]] = {}
        self._lock = Lock()

    def _read(self, graph: str, data: bytes) -> Any:
        try:
            return self._core.read_model(model=data)
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO {self._openvino.__version__} cannot load the graph '{graph}': {error}",
                hint="export the bundle again, or use the backend 'onnxruntime'",
            ) from error

    def _check(self, graph: str, inputs: list[str]) -> None:
        model = self._graphs[graph]
        found = [port.get_any_name() for port in model.inputs], [port.get_any_name() for port in model.outputs]
        if found != (inputs, self._outputs[graph]):
            raise BackendError(
                f"graph '{graph}' has the inputs and outputs {found}, the manifest lists others",
                hint="export the bundle again",
            )

    def compiled(self, graph: str, shapes: Shapes) -> Any:
        """The graph compiled for these shapes of its inputs; the least recently used one makes room."""
        if graph not in self._graphs:
            raise BackendError(f"graph '{graph}' is not open", note=f"open: {', '.join(self._graphs) or 'none'}")
        key = graph, shapes
        with self._lock:
            if key not in self._compiled:
                model = self._graphs[graph].clone()  # a graph takes shapes once
                try:
                    model.reshape({name: list(shape) for name, shape in shapes})
                    join_linear_layers(model)
                    split_convolutions(model)
                    self._compiled[key] = self._core.compile_model(model, self._device, self._of(graph))
                except RuntimeError as error:
                    raise BackendError(f"OpenVINO cannot compile the graph '{graph}': {error}") from error
                while len(self._compiled) > MAX_COMPILED:
                    self._idle.pop(self._compiled.popitem(last=False)[0], None)
            self._compiled.move_to_end(key)
            return self._compiled[key]

    def _of(self, graph: str) -> dict[str, Any]:
        """Properties of a graph; the text encoder, which runs once for each text, stays float32.

        BERT masks with float32's most negative number. bfloat16 rounds it to infinity, and no text at all gives NaN.
        """
        return self._properties | ({OPTIONS["inference_precision"]: "f32"} if graph == TEXT_ENCODER else {})

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one graph; several threads may call at once. Raises BackendError with OpenVINO's reason."""
        key = graph, _shapes(inputs)
        compiled = self.compiled(*key)
        with self._lock:
            idle = self._idle.setdefault(key, [])
            request = idle.pop() if idle else compiled.create_infer_request()
        try:
            found = request.infer(inputs, share_inputs=True)
            # Copies: the request's own memory is written again by the next call.
            return {name: np.array(found[name]) for name in self._outputs[graph]}
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed in the graph '{graph}': {error}") from error
        finally:
            with self._lock:
                idle.append(request)

    def bind(self, graph: str, device: Device, buffers: Mapping[str, Buffer]) -> Work:
        """The graph on buffers that the host sees, read and written in place."""
        if self.device_kind != "host" or not device.unified:
            raise DeviceError(
                f"OpenVINO's {self._device} does not work in the memory of a device of kind '{device.kind}'",
                hint="use onnxruntime:cuda, or TensorRT plans, on an NVIDIA GPU",
            )
        outputs = self._outputs[graph]
        arrays = {name: buffer.array() for name, buffer in buffers.items()}
        shapes = _shapes({name: array for name, array in arrays.items() if name not in outputs})
        request = self.compiled(graph, shapes).create_infer_request()
        for name, array in arrays.items():
            request.set_tensor(name, self._openvino.Tensor(array, shared_memory=True))

        def infer(_: Stream) -> None:
            try:
                request.infer()
            except RuntimeError as error:
                raise BackendError(f"OpenVINO failed in the graph '{graph}': {error}") from error

        reads = tuple(buffer for name, buffer in buffers.items() if name not in outputs)
        return Work(graph, reads, tuple(buffers[name] for name in outputs), infer)

    def close(self) -> None:
        """Drops the compiled graphs."""
        self._idle.clear()
        self._compiled.clear()
        self._graphs.clear()


def _shapes(inputs: Mapping[str, np.ndarray]) -> Shapes:
    return tuple((name, tuple(value.shape)) for name, value in sorted(inputs.items()))

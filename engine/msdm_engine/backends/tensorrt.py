"""Plans on a GPU: the backends ``tensorrt`` and ``tensorrt-rtx``, one implementation with two modules.

A plan is run only where backend, version, compute capability, precision, graph and shape are its own
(:func:`msdm_engine.bundle.plans.find_plan`); there is no other plan, and no other backend, that takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.backends.activation import RUN, STAGES, StageMemory
from msdm_engine.backends.runtime_cache import cache_folder
from msdm_engine.backends.staged import MakeBuffers, StagedRuns
from msdm_engine.backends.tensorrt_module import import_tensorrt, logger_of
from msdm_engine.backends.tensorrt_plan import LoadedPlan
from msdm_engine.bundle.graph_shapes import Shape, dimensions_of
from msdm_engine.bundle.manifest import GraphSpec, Variant
from msdm_engine.bundle.plans import find_plan
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import FLOAT32
from msdm_engine.devices.contract import Buffer, Device, Stream, Work
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.errors import BackendError, DeviceError


class TensorRTBackend:
    """Opens with a GPU and TensorRT; a plan is read, verified and loaded when a shape is bound that it runs.

    Args:
        name: ``tensorrt`` or ``tensorrt-rtx``.
        precision: of the plans.
        trt, device: handed in by tests; None imports the module, and opens the first GPU.
        cache: folder of the kernels that TensorRT for RTX compiles; None: :func:`cache_folder`.

    Raises:
        BackendError: TensorRT, the driver or the GPU is missing.
        BundleError: the bundle does not have its graphs in this precision.
    """

    device_kind = "cuda"

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        *,
        precision: str = FLOAT32,
        trt: Any = None,
        device: CudaDevice | None = None,
        cache: Path | None = None,
    ) -> None:
        self._bundle, self._name, self._precision = bundle, name, precision
        self._graphs: dict[str, GraphSpec | Variant] = bundle.in_precision(precision)
        self._trt = import_tensorrt(name) if trt is None else trt
        self._cache = cache_folder() if cache is None else cache
        self._messages: list[str] = []
        self._owns_device = device is None
        self.device = CudaDevice() if device is None else device
        #: plan -> why it cannot be captured in a CUDA graph; those that can are not in it.
        self.not_capturable: dict[str, str] = {}
        self._plans: dict[str, LoadedPlan] = {}
        self._memory: dict[str, StageMemory] = {}
        self.closed = False
        try:
            self.device.make_current(again=True)
            self._runtime = self._trt.Runtime(logger_of(self._trt, self._messages))
            self._warm = self.device.stream("warm-up")
            self._runs = StagedRuns(self.device, self._graphs, self._bind_to_run)
        except BaseException:
            self._close_device()
            raise
        self.identity = {
            "backend": name,
            "version": str(self._trt.__version__),
            "precision": precision,
            **{f"device_{key}": value for key, value in self.device.identity.items()},
        }

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one graph through pinned memory and waits for it; a shape's first run binds its plan."""
        self._check_is_open()
        if graph not in self._graphs:
            raise BackendError(f"graph '{graph}' is not open", note=f"open: {', '.join(self._graphs)}")
        return self._runs.run(graph, inputs)

    def bind(self, graph: str, device: Device, buffers: Mapping[str, Buffer]) -> Work:
        """See :class:`msdm_engine.backends.DeviceBackend`. The work is one call: ``execute_async_v3``.

        The plan is run once on the buffers here, so that nothing is compiled or allocated later, and captured once, to
        know that it can be. The host waits for the device before that, and the outputs are zero afterwards.

        Raises:
            BackendError: no plan fits, with the command that builds one, or TensorRT refuses it.
            BundleError: the plan's bytes are not those of the manifest.
            DeviceError: a device of another kind or GPU, or a buffer that is no tensor of the graph.
        RequestError: shapes that the graph does not have.
        """
        self._check_buffers(graph, buffers)
        shapes = {name: buffer.shape for name, buffer in buffers.items()}
        return self._bind(graph, device, shapes, lambda _: buffers, STAGES.get(graph, graph))

    def close(self) -> None:
        """Frees contexts, then plans, then memory; a second call does nothing."""
        if self.closed:
            return
        self.closed = True
        try:
            self._runs.close()
            for memory in self._memory.values():
                memory.close()
        finally:
            self._plans.clear()
            self._runtime = None
            self._close_device()

    def _bind_to_run(self, graph: str, shapes: dict[str, Shape], make: MakeBuffers) -> Work:
        return self._bind(graph, self.device, shapes, make, RUN)

    def _bind(self, graph: str, device: Device, shapes: dict[str, Shape], make: MakeBuffers, stage: str) -> Work:
        """Binds the buffers that ``make`` gives for the outputs' shapes, which only TensorRT knows of every graph."""
        self._check_is_open()
        if not isinstance(device, CudaDevice) or device.index != self.device.index:
            raise DeviceError(
                f"a device of the kind '{device.kind}' for the backend '{self._name}'",
                note=f"plans run on the GPU {self.device.index}, the device 'cuda'",
            )
        spec = self._graphs[graph]
        plan = self._plan(graph, dimensions_of(graph, spec.inputs, shapes))
        device.synchronize()  # what shares memory with the warm-up is over
        context, size = plan.context({tensor.name: shapes[tensor.name] for tensor in spec.inputs})
        expected = {tensor.name: tuple(context.get_tensor_shape(tensor.name)) for tensor in spec.outputs}
        buffers = make(expected)
        for name, shape in expected.items():
            if buffers[name].shape != shape:
                raise DeviceError(
                    f"buffer '{name}' has the shape {list(buffers[name].shape)}",
                    note=f"the plan '{plan.name}' gives {list(shape)}",
                )
        memory = self._memory.setdefault(stage, StageMemory(self.device, stage))
        block = memory.block(size)
        context.set_device_memory(block.pointer, block.nbytes)
        for tensor in (*spec.inputs, *spec.outputs):
            if not context.set_tensor_address(tensor.name, buffers[tensor.name].pointer):
                raise plan.failed(f"take the address of '{tensor.name}'")
        reads = tuple(buffers[tensor.name] for tensor in spec.inputs)
        outputs = tuple(buffers[tensor.name] for tensor in spec.outputs)

        def enqueue(stream: Stream) -> None:
            if not context.execute_async_v3(stream.handle):
                raise plan.failed("run")

        def run(stream: Stream) -> None:
            memory.enter(stream)
            enqueue(stream)

        capturable = self._warm_up(plan, Work(graph, reads, (*outputs, block), enqueue), context, outputs)
        return Work(graph, reads, (*outputs, block), run, capturable)

    def _warm_up(self, plan: LoadedPlan, work: Work, context: Any, outputs: tuple[Buffer, ...]) -> bool:
        """Runs once, keeps what was compiled, captures once; whether that can be done."""
        stream = self._warm
        stream.submit(work)
        stream.synchronize()
        plan.save_cache()
        reason = ""
        if hasattr(context, "is_stream_capturable") and not context.is_stream_capturable(stream.handle):
            reason = "is_stream_capturable says no"
        else:
            try:
                with stream.capture(f"trial of {plan.name}") as graph:
                    stream.submit(work)
                graph().free()
            except BackendError as error:  # TensorRT's refusal and CUDA's; the stream is usable after either
                reason = error.what
        for buffer in outputs:
            stream.zero(buffer)
        stream.synchronize()
        if reason:
            self.not_capturable[plan.name] = reason
        return not reason

    def _plan(self, graph: str, dimensions: dict[str, int]) -> LoadedPlan:
        name = find_plan(
            self._bundle, graph, backend=self._name, version=self.identity["version"],
            target=self.device.identity["capability"], precision=self._precision, dimensions=dimensions,
        )  # fmt: skip
        if name not in self._plans:
            self._messages.clear()
            logger_of(self._trt, self._messages)
            self._plans[name] = LoadedPlan(
                self._trt, self._runtime, name, self._bundle.manifest.plans[name], self._bundle.plan_bytes(name),
                self._graphs[graph], self.device, self._cache, self._messages,
            )  # fmt: skip
        return self._plans[name]

    def _check_buffers(self, graph: str, buffers: Mapping[str, Buffer]) -> None:
        """The buffers are the graph's tensors, on the GPU."""
        spec = self._graphs[graph]
        for tensor in (*spec.inputs, *spec.outputs):
            buffer = buffers.get(tensor.name)
            wrong = "is missing" if buffer is None else ""
            if buffer is not None and buffer.dtype != np.dtype(tensor.dtype):
                wrong = f"is {buffer.dtype}, not {tensor.dtype}"
            elif buffer is not None and buffer.place != "device":
                wrong = "lies on the host"
            if wrong:
                raise DeviceError(f"buffer '{tensor.name}' of the graph '{graph}' {wrong}")

    def _check_is_open(self) -> None:
        if self.closed:
            raise BackendError(f"the backend '{self._name}' is closed", hint="open the engine again")

    def _close_device(self) -> None:
        if self._owns_device:
            self.device.close()

"""A TensorRT, or a TensorRT for RTX, whose plans compute what a function says, on a rehearsed CUDA.

A plan's bytes are JSON: the graph, its tensors and the version that built it (:func:`plan_bytes`). A context keeps what
it was given and refuses what TensorRT refuses: an enqueue without all addresses, shapes or memory, or with memory that
is too small. While it runs it fills its activation memory, so that whoever keeps something there loses it.
"""

from __future__ import annotations

import ctypes
import enum
import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from msdm_engine.bundle.manifest import GraphSpec, TensorSpec, Variant
from msdm_engine.devices.cuda_memory import view_of_host
from msdm_engine.rehearsal.cuda import ILLEGAL_ADDRESS, OK, RehearsedCuda

Arrays = dict[str, np.ndarray]
Compute = Callable[[str, Arrays], Arrays]


class Strategy(enum.IntEnum):
    """``ExecutionContextAllocationStrategy``."""

    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class Specialisation(enum.IntEnum):
    """``DynamicShapesKernelSpecializationStrategy``."""

    LAZY = 0
    EAGER = 1
    NONE = 2


class Logger:
    """``ILogger``."""

    VERBOSE, INFO, WARNING, ERROR, INTERNAL_ERROR = range(5)


def plan_bytes(graph: str, spec: GraphSpec | Variant, version: str, activation_bytes: int = 1024) -> bytes:
    """A plan of a graph that :class:`RehearsedTensorRT` of this version loads."""
    sides = {
        side: [[tensor.name, tensor.dtype, list(tensor.shape)] for tensor in getattr(spec, side)]
        for side in ("inputs", "outputs")
    }
    return json.dumps({"graph": graph, "version": version, "activation_bytes": activation_bytes, **sides}).encode()


class RehearsedTensorRT:
    """The module. What TensorRT for RTX alone has is absent where ``rtx`` is False.

    Args:
        compute: graph and inputs -> outputs.
        capturable: what ``is_stream_capturable`` answers; a plan that is not allocates while it runs.
    """

    ExecutionContextAllocationStrategy = Strategy
    ILogger = Logger

    def __init__(self, cuda: RehearsedCuda, compute: Compute, *, rtx: bool = True, capturable: bool = True) -> None:
        self.__name__ = "tensorrt_rtx" if rtx else "tensorrt"
        self.__version__ = "1.7.1.116" if rtx else "11.4.0.106"
        self.cuda, self.compute, self.rtx, self.capturable = cuda, compute, rtx, capturable
        #: what happened, in words, in order
        self.log: list[str] = []
        #: methods of a context that answer "no" from now on
        self.refuses: set[str] = set()
        self.activation: list[tuple[str, int, int]] = []
        self.specialisations: list[Specialisation] = []
        if rtx:
            self.DynamicShapesKernelSpecializationStrategy = Specialisation

    @staticmethod
    def nptype(dtype: str) -> type:
        """TensorRT's type -> NumPy's."""
        return np.dtype(dtype).type

    def Runtime(self, logger: Any) -> Any:
        """``trt.Runtime``."""
        runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: self._load(logger, data))
        if self.rtx:
            runtime.get_engine_validity = lambda data: ("EngineValidity.INVALID", 16)
        return runtime

    def _load(self, logger: Any, data: bytes) -> Any:
        plan = json.loads(data)
        if plan["version"] != self.__version__ or "load" in self.refuses:
            logger.log(Logger.ERROR, "Rebuild the engine with the same version of TensorRT")
            return None
        self.log.append(f"load {plan['graph']}")
        return Engine(self, plan)


class Engine:
    """``ICudaEngine``."""

    def __init__(self, trt: RehearsedTensorRT, plan: dict[str, Any]) -> None:
        self.trt, self.graph, self.activation_bytes = trt, plan["graph"], plan["activation_bytes"]
        self.inputs, self.outputs = (
            tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in plan[side])
            for side in ("inputs", "outputs")
        )
        self.num_io_tensors = len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index: int) -> str:
        """In the order of the plan."""
        return (*self.inputs, *self.outputs)[index].name

    def get_tensor_dtype(self, name: str) -> str:
        """As NumPy names it."""
        return {tensor.name: tensor.dtype for tensor in (*self.inputs, *self.outputs)}[name]

    def create_runtime_config(self) -> Any:
        """``IRuntimeConfig``; the runtime cache is RTX's alone."""
        config = SimpleNamespace(strategy=Strategy.STATIC, cache=None)
        config.set_execution_context_allocation_strategy = lambda value: setattr(config, "strategy", value)
        if self.trt.rtx:
            config.dynamic_shapes_kernel_specialization_strategy = Specialisation.LAZY
            config.create_runtime_cache = lambda: RuntimeCache(self.trt)
            config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        return config

    def create_execution_context(self, config: Any) -> Any:
        """``IExecutionContext``, or None."""
        if "create_execution_context" in self.trt.refuses:
            return None
        assert config.strategy == Strategy.USER_MANAGED
        if self.trt.rtx:
            self.trt.specialisations.append(config.dynamic_shapes_kernel_specialization_strategy)
        return Context(self, config.cache)


class RuntimeCache:
    """``IRuntimeCache``: names of the graphs whose kernels are compiled, for this version."""

    def __init__(self, trt: RehearsedTensorRT) -> None:
        self.trt, self.compiled = trt, list[str]()

    def deserialize(self, data: bytes) -> bool:
        """Whether it was taken; unchanged if not."""
        version, *graphs = data.decode().split()
        if version != self.trt.__version__:
            return False
        self.compiled = graphs
        return True

    def serialize(self) -> bytes:
        """``IHostMemory``."""
        return " ".join([self.trt.__version__, *self.compiled]).encode()


class Context:
    """``IExecutionContext``."""

    def __init__(self, engine: Engine, cache: RuntimeCache | None) -> None:
        self.engine, self.trt, self.cache = engine, engine.trt, cache
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory = (0, 0)
        self._known: dict[str, tuple[int, ...]] = {}
        if self.trt.rtx:
            self.is_stream_capturable = lambda stream: self.trt.capturable

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether the profile has it."""
        self.shapes[name] = tuple(shape)
        return "set_input_shape" not in self.trt.refuses

    def update_device_memory_size_for_shapes(self) -> int:
        """In proportion to the first input."""
        return int(self.engine.activation_bytes) * int(np.prod(next(iter(self.shapes.values()))[:1]))

    def set_device_memory(self, pointer: int, size: int) -> None:
        """Fixed from now on."""
        self.memory = pointer, size
        self.trt.activation.append((self.engine.graph, pointer, size))

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        """Whether there is such a tensor."""
        self.addresses[name] = pointer
        return "set_tensor_address" not in self.trt.refuses

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Of any tensor, from the inputs' shapes."""
        return self._shapes()[name]

    def execute_async_v3(self, stream: int) -> bool:
        """Enqueues; False where something is missing."""
        tensors = (*self.engine.inputs, *self.engine.outputs)
        ready = all(tensor.name in self.addresses for tensor in tensors)
        if (
            not ready
            or self.memory[1] < self.update_device_memory_size_for_shapes()
            or "execute_async_v3" in self.trt.refuses
        ):
            return False
        if self.cache is not None and self.engine.graph not in self.cache.compiled:
            self.trt.log.append(f"compile {self.engine.graph}")
            self.cache.compiled.append(self.engine.graph)
        self.trt.log.append(f"enqueue {self.engine.graph}")
        if not self.trt.capturable and self.trt.cuda.cudaMalloc(16)[0] != OK:
            return False
        return self.trt.cuda.enqueue(stream, self._compute) == OK

    def _compute(self) -> int:
        shapes, cuda = self._shapes(), self.trt.cuda
        arrays: Mapping[str, np.ndarray] = {
            tensor.name: view_of_host(self.addresses[tensor.name], shapes[tensor.name], np.dtype(tensor.dtype))
            for tensor in (*self.engine.inputs, *self.engine.outputs)
        }
        places = [(self.addresses[name], array.nbytes) for name, array in arrays.items()]
        if any(cuda.check(pointer, size) for pointer, size in (*places, self.memory)):
            return ILLEGAL_ADDRESS
        ctypes.memset(self.memory[0], 0xFF, self.memory[1])
        with np.errstate(all="ignore"):
            found = self.trt.compute(self.engine.graph, {t.name: arrays[t.name].copy() for t in self.engine.inputs})
        for tensor in self.engine.outputs:
            arrays[tensor.name][...] = found[tensor.name]
        return OK

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Outputs have dimensions that no input names, so the function is asked once, with zeros."""
        if not self._known:
            zeros = {t.name: np.zeros(self.shapes[t.name], t.dtype) for t in self.engine.inputs}
            with np.errstate(all="ignore"):
                found = self.trt.compute(self.engine.graph, zeros)
            self._known = self.shapes | {t.name: found[t.name].shape for t in self.engine.outputs}
        return self._known

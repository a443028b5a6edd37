"""One plan in memory, and the execution contexts that are made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.backends.runtime_cache import cache_file, read_cache, write_cache
from msdm_engine.backends.tensorrt_module import log_of
from msdm_engine.bundle.manifest import GraphSpec, Variant
from msdm_engine.bundle.plan_spec import PLAN_BACKENDS, PlanSpec
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.errors import BackendError

REBUILD = "build the plan again on a machine with this GPU: `msdm-export inspect BUNDLE` prints the command"


class LoadedPlan:
    """A deserialised plan; :meth:`context` makes one execution context for each binding.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``; what only one of them has is asked for.
        data: verified bytes.
        tensors: the graph's inputs and outputs in the plan's precision.
        cache: folder of compiled kernels (TensorRT for RTX); None keeps none.
        messages: what TensorRT's logger writes to.

    Raises:
        BackendError: a plan without weights, one that TensorRT refuses, or whose tensors are not the manifest's.
    """

    def __init__(
        self,
        trt: Any,
        runtime: Any,
        name: str,
        spec: PlanSpec,
        data: bytes,
        tensors: GraphSpec | Variant,
        device: CudaDevice,
        cache: Path | None,
        messages: list[str],
    ) -> None:
        self.name, self.spec, self._trt, self._messages = name, spec, trt, messages
        if spec.options.get("stripped"):
            raise BackendError(
                f"the plan '{name}' was built without its weights", note="the engine refits none",
                hint="build it without --strip",
            )  # fmt: skip
        device.make_current(again=True)  # TensorRT loads a plan on whatever GPU is current
        self.engine = runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            raise BackendError(
                f"{PLAN_BACKENDS[spec.backend]} {spec.version} cannot load the plan '{name}'{_validity(runtime, data)}",
                note=log_of(messages), hint=REBUILD,
            )  # fmt: skip
        self._check_tensors(tensors)
        self._cache_path = cache_file(cache, spec, device.identity) if cache is not None else None
        self._cache: Any = None
        self._kept = b""

    def context(self, shapes: dict[str, tuple[int, ...]]) -> tuple[Any, int]:
        """An execution context for these input shapes, and the bytes of activation memory that it needs.

        Raises:
            BackendError: TensorRT refuses.
        """
        trt = self._trt
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if hasattr(self.engine, "create_runtime_config"):
            config = self.engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            self._specialise(config)
            if self._cache_path is not None and hasattr(config, "create_runtime_cache"):
                config.set_runtime_cache(self._opened_cache(config, self._cache_path))
            context = self.engine.create_execution_context(config)
        else:
            context = self.engine.create_execution_context(strategy)
        if context is None:
            raise self.failed("make an execution context")
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise self.failed(f"take '{name}' of the shape {list(shape)}")
        return context, int(context.update_device_memory_size_for_shapes())

    def save_cache(self) -> None:
        """Keeps what was compiled since the last time, on disk; raises OutputError."""
        if self._cache is None or self._cache_path is None:
            return
        compiled = self._cache.serialize()
        data = bytes(memoryview(compiled)) if compiled is not None else b""
        if data and data != self._kept:
            write_cache(self._cache_path, data)
            self._kept = data

    def failed(self, what: str) -> BackendError:
        """TensorRT said no."""
        return BackendError(
            f"{PLAN_BACKENDS[self.spec.backend]} {self.spec.version} did not {what} with the plan '{self.name}'",
            note=log_of(self._messages), hint="`msdm-engine doctor` says what does not fit",
        )  # fmt: skip

    def _specialise(self, config: Any) -> None:
        """Kernels for the shapes are compiled now (EAGER) or never (NONE), as the plan was built for.

        Never later: RTX's own default swaps kernels in the background, and a capture would keep the slow ones.
        """
        strategies = getattr(self._trt, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is None:
            return
        word = str(self.spec.options.get("capture", {}).get("specialisation", "eager")).upper()
        if word not in ("EAGER", "NONE"):
            raise BackendError(
                f"the plan '{self.name}' asks for the kernel specialisation '{word.lower()}'",
                note="eager or none: others change kernels while the plan runs", hint=REBUILD,
            )  # fmt: skip
        config.dynamic_shapes_kernel_specialization_strategy = getattr(strategies, word)

    def _opened_cache(self, config: Any, path: Path) -> Any:
        """One cache for all contexts of the plan; a file that the runtime refuses is compiled anew and replaced."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            data = read_cache(path)
            if data and self._cache.deserialize(data):
                self._kept = data
        return self._cache

    def _check_tensors(self, tensors: GraphSpec | Variant) -> None:
        """Names and types are those of the manifest."""
        engine = self.engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        found = {name: np.dtype(self._trt.nptype(engine.get_tensor_dtype(name))).name for name in names}
        listed = {tensor.name: tensor.dtype for tensor in (*tensors.inputs, *tensors.outputs)}
        if found != listed:
            wrong = sorted(set(found.items()) ^ set(listed.items()))
            raise BackendError(
                f"the plan '{self.name}' has other tensors than the manifest lists",
                note=", ".join(f"{name} {dtype}" for name, dtype in wrong), hint=REBUILD,
            )  # fmt: skip


def _validity(runtime: Any, data: bytes) -> str:
    """What TensorRT for RTX says of a plan that it refuses."""
    if not hasattr(runtime, "get_engine_validity"):
        return ""
    validity, diagnostics = runtime.get_engine_validity(data)
    return f" ({str(validity).rpartition('.')[2].lower()}, diagnostics {diagnostics})"

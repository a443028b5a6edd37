"""What runs the reference denoiser on this machine's GPU: plans where TensorRT is, else ONNX Runtime on CUDA."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msdm_engine import Bundle
from msdm_engine.backends import DeviceBackend
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.cuda_stream import CudaStream


class CannotTell(Exception):
    """The part needs something that this machine does not have; says what."""


@dataclass(frozen=True)
class OnGpu:
    """An open backend, and the stream that its graphs run on."""

    name: str
    bundle: Bundle
    precision: str
    device: CudaDevice
    stream: CudaStream
    backend: DeviceBackend


def usable_tensorrt(target: str) -> str:
    """``tensorrt``, ``tensorrt-rtx`` or "": which is installed and has code for this GPU."""
    from msdm_export.plans.targets import backend_of

    for module in ("tensorrt", "tensorrt_rtx"):
        there = importlib.util.find_spec(module) is not None and importlib.util.find_spec("polygraphy") is not None
        if there and module in ("tensorrt", backend_of(target).replace("-", "_")):
            return module.replace("_", "-")
    return ""


@contextmanager
def planned_bundle(backend: str, target: str, profiles: Sequence[str]) -> Iterator[Bundle]:
    """The reference bundle in float16 with plans for this GPU, in a scratch folder."""
    from msdm_export.plans.job import BuildRequest, build
    from msdm_export.precision.variants import add_precision

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        add_precision(Bundle.open().folder, "fp16", out=folder)
        build(BuildRequest(folder, backend, (target,), tuple(profiles), "fp16"))
        yield Bundle.open(folder)


@contextmanager
def on_gpu(target: str, profiles: Sequence[str]) -> Iterator[OnGpu]:
    """Opens the better of what is there; closed and freed at the end.

    Raises:
        CannotTell: neither TensorRT nor ONNX Runtime's CUDA provider.
    """
    name = usable_tensorrt(target)
    with CudaDevice() as device:
        stream = device.stream("steps")
        if name:
            from msdm_engine.backends.tensorrt import TensorRTBackend

            with planned_bundle(name, target, profiles) as bundle:
                plans = TensorRTBackend(bundle, name, precision="fp16", device=device)
                try:
                    yield OnGpu(name, bundle, "fp16", device, stream, plans)
                finally:
                    plans.close()
            return
        check_onnxruntime_cuda()
        from msdm_engine.backends.onnxruntime import OnnxRuntimeBackend
        from msdm_engine.backends.providers import parse_provider

        bundle, provider = Bundle.open(), parse_provider("cuda")
        runtime = OnnxRuntimeBackend(bundle, provider=provider, stream=stream.handle)
        try:
            yield OnGpu("onnxruntime:cuda", bundle, "float32", device, stream, runtime)
        finally:
            runtime.close()


def check_onnxruntime_cuda() -> None:
    """Raises CannotTell where ONNX Runtime has no CUDA provider."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise CannotTell("neither TensorRT for this GPU nor ONNX Runtime is installed")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise CannotTell("no TensorRT for this GPU is installed, and ONNX Runtime has no CUDA provider")

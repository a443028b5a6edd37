"""The parts of the GPU acceptance: each proves what it can and returns JSON, or says why it cannot."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks.gpu_backends import CannotTell, check_onnxruntime_cuda, on_gpu, planned_bundle, usable_tensorrt
from benchmarks.gpu_cuda import Compiler, Trajectory, compare_trajectory
from benchmarks.gpu_interop import exchange
from benchmarks.gpu_on_device import BATCH, SIZE_PX, on_device
from benchmarks.gpu_pipeline import Steps, captured_trajectory, overlap
from benchmarks.gpu_power import while_running
from benchmarks.gpu_throughput import PROFILES, share_of_peak, sweep

from msdm_engine import Bundle, Engine
from msdm_engine.backends import open_backend
from msdm_engine.contract import DENOISER
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.doctor.probe import Probe, probe_gpus
from msdm_engine.doctor.report import findings, installed_versions
from msdm_engine.sampling.noise import philox4x32


def need(module: str, what: str) -> None:
    """Raises :class:`CannotTell` where a module is missing."""
    if importlib.util.find_spec(module) is None:
        raise CannotTell(f"{what} is not installed")


#: Asked once in a process.
probe = functools.cache(probe_gpus)


def gpu_or_cannot_tell(found: Probe) -> str:
    """Capability of the first GPU."""
    if not found.gpus:
        raise CannotTell(f"no GPU: {found.problem}")
    return found.gpus[0].target


def open_compiler() -> Compiler:
    """NVRTC and the driver; only after a probe found a GPU."""
    need("cuda.bindings", "cuda-python")
    from cuda.bindings import driver, nvrtc

    return Compiler(driver, nvrtc)


def machine() -> dict[str, Any]:
    """GPUs, versions, and what the doctor says."""
    found, versions = probe(), installed_versions()
    gpu_or_cannot_tell(found)
    return {
        "gpus": [vars(gpu) for gpu in found.gpus],
        "driver": found.driver,
        "runtime": found.runtime,
        "versions": versions,
        "findings": [str(finding) for finding in findings(found, versions)],
    }


def kernels() -> dict[str, Any]:
    """Kernels compiled from source here: Philox's random words are the host's to the bit."""
    target, compiler = gpu_or_cannot_tell(probe()), open_compiler()
    channels, height, blocks, step, sample, seed = 6, 64, 16, 3, 41, 2**40 + 7
    shape, key = (channels, height, blocks, 4), (seed & 0xFFFFFFFF, seed >> 32)
    with CudaDevice() as device:
        functions, stream = compiler.kernels(compiler.compile(target)), device.stream("words")
        out, host = (device.buffer(place, shape, np.dtype(np.uint32), place) for place in ("device", "host"))
        numbers = (blocks, height, channels, step, sample, *key)
        arguments = [(out.pointer, ctypes.c_void_p), *((value, ctypes.c_uint) for value in numbers)]
        compiler.launch(functions["philox"], stream, channels * height * blocks, *arguments)
        stream.copy(host, out)
        stream.synchronize()
        found = host.array().copy()
    x, y = np.arange(blocks, dtype=np.uint32)[None, None, :], np.arange(height, dtype=np.uint32)[None, :, None]
    c = (np.arange(channels, dtype=np.uint32) + np.uint32(step << 8))[:, None, None]
    expected = np.stack(philox4x32((x, y, c, np.full((1, 1, 1), sample, np.uint32)), key), -1)
    assert np.array_equal(found, expected), "Philox on the GPU gives other words than on the host"
    return {"target": target, "philox_words": int(found.size), "equal_to_the_bit": True}


def graphs() -> dict[str, Any]:
    """A trajectory of the solver: launched, then captured and replayed; both are NumPy's to the bit."""
    target, compiler = gpu_or_cannot_tell(probe()), open_compiler()
    table, shape = Bundle.open().manifest.sampling.table(), (4, 6, 128, 128)
    with CudaDevice() as device:
        kernel = compiler.kernels(compiler.compile(target))["update"]
        found = compare_trajectory(device, Trajectory(device, compiler, kernel, table, shape), table, shape)
    return {"steps": len(table), "shape": list(shape), "equal_to_the_bit": True} | found


def denoiser() -> dict[str, Any]:
    """The reference denoiser on the engine's device: bound, submitted, captured and replayed."""
    with on_gpu(gpu_or_cannot_tell(probe()), ("128:4",)) as gpu:
        table = gpu.bundle.manifest.sampling.table()
        steps = Steps(gpu.device, gpu.stream, gpu.backend, gpu.bundle, gpu.precision, table, 128, 4)
        reference = open_backend("onnxruntime", gpu.bundle, precision=gpu.precision)  # on the CPU
        found = captured_trajectory(steps, reference.run, gpu.precision)
        reference.close()
    return {"backend": gpu.name, "precision": gpu.precision, "size_px": 128, "batch": 4} | found


def overlapping() -> dict[str, Any]:
    """Copies both ways beside the solver's kernels: how much of the shorter is hidden."""
    target, compiler = gpu_or_cannot_tell(probe()), open_compiler()
    table, shape = np.tile(Bundle.open().manifest.sampling.table(), (20, 1)), (16, 6, 256, 256)
    with CudaDevice() as device:
        kernel = compiler.kernels(compiler.compile(target))["update"]
        run = Trajectory(device, compiler, kernel, table, shape)
        return overlap(device, run.run, run.work, mib=64)


def interop() -> dict[str, Any]:
    """Arrays and streams exchanged with CuPy and PyTorch, where they are installed."""
    gpu_or_cannot_tell(probe())
    found = libraries()
    with CudaDevice() as device:
        return {name: exchange(device, library, name) for name, library in found.items()}


def results_on_device() -> dict[str, Any]:
    """Batches of the engine on plans, which CuPy and PyTorch read where they lie, on streams of their own."""
    target = gpu_or_cannot_tell(probe())
    found, name = libraries(), usable_tensorrt(target)
    if not name:
        raise CannotTell(f"no TensorRT for {target} is installed")
    with (
        planned_bundle(name, target, (f"{SIZE_PX}:{BATCH}",)) as bundle,
        Engine.open(bundle, backend=name, precision="fp16") as engine,
    ):
        return {name: on_device(engine, library, library.cuda.Stream()) for name, library in found.items()}


def libraries() -> dict[str, Any]:
    """CuPy and PyTorch, as far as they are installed and see a GPU."""
    found = {name: importlib.import_module(name) for name in ("cupy", "torch") if importlib.util.find_spec(name)}
    if "torch" in found and not found["torch"].cuda.is_available():
        del found["torch"]
    if not found:
        raise CannotTell("neither CuPy nor a PyTorch with CUDA is installed")
    return found


def throughput() -> dict[str, Any]:
    """Pairs a second over batch and size, with plans or with ONNX Runtime on CUDA."""
    target = gpu_or_cannot_tell(probe())
    name = usable_tensorrt(target)
    if not name:
        check_onnxruntime_cuda()
        return {"backend": "onnxruntime:cuda"} | sweep(lambda: Engine.open(backend="onnxruntime:cuda"))
    with planned_bundle(name, target, PROFILES) as bundle:
        return {"backend": name} | sweep(lambda: Engine.open(bundle, backend=name, precision="fp16"))


def power() -> dict[str, Any]:
    """Power and clocks while the denoiser runs, and joules a trajectory."""
    target = gpu_or_cannot_tell(probe())
    if shutil.which("nvidia-smi") is None:
        raise CannotTell("there is no nvidia-smi")
    with on_gpu(target, ("128:4",)) as gpu:
        table = gpu.bundle.manifest.sampling.table()
        steps = Steps(gpu.device, gpu.stream, gpu.backend, gpu.bundle, gpu.precision, table, 128, 4)
        steps.load()

        def load() -> None:
            steps.run()
            gpu.stream.synchronize()

        return {"backend": gpu.name, "pairs_per_run": 4} | while_running(load, seconds=20)


def peak() -> dict[str, Any]:
    """The share of the matrix peak, measured here with PyTorch, that a step of the denoiser reaches."""
    target = gpu_or_cannot_tell(probe())
    for module in ("torch", "onnx"):
        need(module, module)
    import torch

    if not torch.cuda.is_available():
        raise CannotTell("the peak is measured with PyTorch, and this one has no CUDA")
    from benchmarks.gpu_torch import gemm_seconds

    from msdm_export.plans.cost import cost_of
    from msdm_export.plans.source import fixed_shapes

    size_px, batch, side = 128, 4, 8192
    gemm_s = gemm_seconds(torch, side)
    with on_gpu(target, (f"{size_px}:{batch}",)) as gpu:
        row = gpu.bundle.manifest.sampling.table()[:1]
        steps = Steps(gpu.device, gpu.stream, gpu.backend, gpu.bundle, gpu.precision, row, size_px, batch)
        steps.load()
        seconds = steps.seconds_each(50)
        file = gpu.bundle.in_precision(gpu.precision)[DENOISER].file
        shapes = {name: value.shape for name, value in steps.given.items()}
        flops = cost_of(fixed_shapes(gpu.bundle.contents[file], shapes)).flops
    return {"backend": gpu.name, "precision": gpu.precision, "size_px": size_px, "batch": batch} | share_of_peak(
        seconds, flops, gemm_s, side
    )


def torch_fp16() -> dict[str, Any]:
    """The reference denoiser in PyTorch on the GPU: float32 and float16 against float32 on the CPU, and their times."""
    gpu_or_cannot_tell(probe())
    for module in ("torch", "onnx"):
        need(module, module)
    import torch

    if not torch.cuda.is_available():
        raise CannotTell("this PyTorch has no CUDA")
    from benchmarks.gpu_torch import compare

    return compare(torch)


def onnxruntime_cuda() -> dict[str, Any]:
    """The reference bundle with ONNX Runtime's CUDA provider, against its CPU provider."""
    gpu_or_cannot_tell(probe())
    need("onnxruntime", "ONNX Runtime")
    from benchmarks.gpu_sample import compare_backends

    return compare_backends("onnxruntime", "onnxruntime:cuda")


def tensorrt_plans() -> dict[str, Any]:
    """Plans for this GPU: built, loaded, run by the engine's backend, and compared with ONNX Runtime on the CPU."""
    target = gpu_or_cannot_tell(probe())
    for module in ("polygraphy", "onnx", "onnxruntime"):
        need(module, module)
    name = usable_tensorrt(target)
    if not name:
        raise CannotTell(f"no TensorRT for {target} is installed")
    from benchmarks.gpu_sample import compare_plans

    sampling = Bundle.open().manifest.sampling
    with planned_bundle(name, target, (f"{sampling.size_px}:{sampling.batch}",)) as bundle:
        return compare_plans(bundle, name)


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "machine": machine,
    "kernels": kernels,
    "graphs": graphs,
    "overlap": overlapping,
    "interop": interop,
    "on_device": results_on_device,
    "torch": torch_fp16,
    "onnxruntime": onnxruntime_cuda,
    "tensorrt": tensorrt_plans,
    "denoiser": denoiser,
    "throughput": throughput,
    "peak": peak,
    "power": power,
}

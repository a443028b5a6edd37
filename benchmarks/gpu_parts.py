"""The parts of the GPU acceptance: each proves what it can and returns JSON, or says why it cannot."""

from __future__ import annotations

import ctypes
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.gpu_cuda import Cuda, Trajectory, call, trajectory_in_numpy

from msdm_engine import Bundle
from msdm_engine.doctor.probe import Probe, probe_gpus
from msdm_engine.doctor.report import findings, installed_versions
from msdm_engine.noise import gaussian, philox4x32

#: Launches that are timed together, after one that is not.
REPEATS = 50


class CannotTell(Exception):
    """The part needs something that this machine does not have; says what."""


def need(module: str, what: str) -> None:
    """Raises :class:`CannotTell` where a module is missing."""
    if importlib.util.find_spec(module) is None:
        raise CannotTell(f"{what} is not installed")


def gpu_or_cannot_tell(probe: Probe) -> str:
    """Capability of the first GPU."""
    if not probe.gpus:
        raise CannotTell(f"no GPU: {probe.problem}")
    return probe.gpus[0].target


def open_cuda() -> Cuda:
    """cuda-python with the first device's context current; only after a probe found a GPU."""
    need("cuda.bindings", "cuda-python")
    from cuda.bindings import driver, nvrtc, runtime

    call(runtime.cudaSetDevice, 0)
    call(runtime.cudaFree, 0)  # creates the context
    return Cuda(runtime, driver, nvrtc)


def machine() -> dict[str, Any]:
    """GPUs, versions, and what the doctor says."""
    probe, versions = probe_gpus(), installed_versions()
    gpu_or_cannot_tell(probe)
    return {
        "gpus": [vars(gpu) for gpu in probe.gpus],
        "driver": probe.driver,
        "runtime": probe.runtime,
        "versions": versions,
        "findings": [str(finding) for finding in findings(probe, versions)],
    }


def kernels() -> dict[str, Any]:
    """Kernels compiled from source here: Philox's random words are the host's to the bit."""
    target = gpu_or_cannot_tell(probe_gpus())
    cuda = open_cuda()
    functions = cuda.kernels(cuda.compile(target))
    channels, height, blocks, step, sample, seed = 6, 64, 16, 3, 41, 2**40 + 7
    stream = call(cuda.runtime.cudaStreamCreateWithFlags, 1)
    n = channels * height * blocks
    found = np.empty((channels, height, blocks, 4), np.uint32)
    out = call(cuda.runtime.cudaMalloc, found.nbytes)
    numbers = (blocks, height, channels, step, sample, seed & 0xFFFFFFFF, seed >> 32)
    arguments = [(int(out), ctypes.c_void_p), *((value, ctypes.c_uint) for value in numbers)]
    cuda.launch(functions["philox"], stream, n, *arguments)
    kind = cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
    call(cuda.runtime.cudaMemcpyAsync, found.ctypes.data, out, found.nbytes, kind, stream)
    call(cuda.runtime.cudaStreamSynchronize, stream)
    x, y = np.arange(blocks, dtype=np.uint32)[None, None, :], np.arange(height, dtype=np.uint32)[None, :, None]
    c = (np.arange(channels, dtype=np.uint32) + np.uint32(step << 8))[:, None, None]
    key = (seed & 0xFFFFFFFF, seed >> 32)
    expected = np.stack(philox4x32((x, y, c, np.full((1, 1, 1), sample, np.uint32)), key), -1)
    assert np.array_equal(found, expected), "Philox on the GPU gives other words than on the host"
    return {"target": target, "philox_words": int(found.size), "equal_to_the_bit": True}


def graphs() -> dict[str, Any]:
    """A trajectory of the solver: launched, then captured and replayed; both are NumPy's to the bit."""
    target = gpu_or_cannot_tell(probe_gpus())
    cuda = open_cuda()
    table = Bundle.open().manifest.sampling.table()
    shape = (4, 6, 128, 128)
    x, z = (np.stack([gaussian(1, i, step, *shape[1:]) for i in range(shape[0])]) for step in (0, 1))
    expected = trajectory_in_numpy(x, z, table)
    run = Trajectory(cuda, cuda.kernels(cuda.compile(target)), table, shape)
    run.load(x, z)
    run.steps()
    launched = run.fetch()
    with cuda.captured(run.work) as graph:
        run.steps()
    executable = graph()
    run.load(x, z)
    call(cuda.runtime.cudaGraphLaunch, executable, run.work)
    replayed = run.fetch()
    assert np.array_equal(launched, expected), "launched kernels differ from NumPy"
    assert np.array_equal(replayed, expected), "the replayed graph differs from NumPy"
    replay = lambda: call(cuda.runtime.cudaGraphLaunch, executable, run.work)  # noqa: E731
    times = {name: run.milliseconds(launch, REPEATS) for name, launch in (("launched", run.steps), ("graph", replay))}
    call(cuda.runtime.cudaGraphExecDestroy, executable)
    run.close()
    return {"steps": len(table), "shape": list(shape), "equal_to_the_bit": True, "milliseconds": times}


def torch_fp16() -> dict[str, Any]:
    """The reference denoiser in PyTorch on the GPU: float32 and float16 against float32 on the CPU, and their times."""
    gpu_or_cannot_tell(probe_gpus())
    for module in ("torch", "onnx"):
        need(module, module)
    import torch

    if not torch.cuda.is_available():
        raise CannotTell("this PyTorch has no CUDA")
    from benchmarks.gpu_torch import compare

    return compare(torch)


def onnxruntime_cuda() -> dict[str, Any]:
    """The reference bundle with ONNX Runtime's CUDA provider, against its CPU provider."""
    gpu_or_cannot_tell(probe_gpus())
    need("onnxruntime", "ONNX Runtime")
    from benchmarks.gpu_sample import compare_backends

    return compare_backends("onnxruntime", "onnxruntime:cuda")


def tensorrt_plans() -> dict[str, Any]:
    """Plans for this GPU: built, loaded, run, and compared with ONNX Runtime on the CPU."""
    target = gpu_or_cannot_tell(probe_gpus())
    for module in ("polygraphy", "onnx", "onnxruntime"):
        need(module, module)
    from benchmarks.gpu_sample import build_and_run

    from msdm_export.plans.targets import backend_of

    found = [m for m in ("tensorrt", "tensorrt_rtx") if importlib.util.find_spec(m) is not None]
    usable = [module for module in found if module in ("tensorrt", backend_of(target).replace("-", "_"))]
    if not usable:
        raise CannotTell(f"no TensorRT for {target} is installed (there is {', '.join(found) or 'none'})")
    with tempfile.TemporaryDirectory() as scratch:
        return build_and_run(Path(scratch) / "bundle", usable[0].replace("_", "-"), target)


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "machine": machine,
    "kernels": kernels,
    "graphs": graphs,
    "torch": torch_fp16,
    "onnxruntime": onnxruntime_cuda,
    "tensorrt": tensorrt_plans,
}

"""The acceptance's parts on a rehearsed GPU: ``python -m benchmarks.gpu_fakes``. Prints one JSON object.

CUDA and TensorRT are :mod:`msdm_engine.rehearsal`: what is tried here is the order of calls and the arithmetic; that a
GPU does the same is for the acceptance itself to prove. The plan of the denoiser computes the reference bundle's graph
with ONNX Runtime on the CPU, small and in two steps.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from benchmarks.gpu_cuda import Compiler, Trajectory, compare_trajectory
from benchmarks.gpu_interop import exchange
from benchmarks.gpu_on_device import on_device
from benchmarks.gpu_pipeline import Steps, captured_trajectory, overlap
from benchmarks.gpu_power import while_running
from benchmarks.gpu_throughput import share_of_peak, sweep

from msdm_engine import Bundle, Engine
from msdm_engine.backends import open_backend
from msdm_engine.backends.tensorrt import TensorRTBackend
from msdm_engine.bundle.plan_spec import PlanSpec
from msdm_engine.contract import DENOISER
from msdm_engine.devices import dlpack
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.cuda_memory import view_of_host
from msdm_engine.errors import DeviceError
from msdm_engine.rehearsal.cuda import OK, RehearsedCuda
from msdm_engine.rehearsal.tensorrt import RehearsedTensorRT, plan_bytes

SIZE_PX, STEPS = 32, 2
F32 = np.dtype(np.float32)


class FakeDriver:
    """``cuLaunchKernel`` of the solver's update, in NumPy."""

    def __init__(self, cuda: RehearsedCuda) -> None:
        self.cuda = cuda

    def cuLaunchKernel(self, kernel: str, *rest: Any) -> tuple[int]:
        stream, (values, _) = rest[7], rest[8]

        def run() -> int:
            x, d_prev, z = (view_of_host(pointer, (values[4],), F32) for pointer in values[:3])
            row = view_of_host(values[3], (5,), F32)
            d = np.float32(0.5) * x
            x[:] = row[1] * x + row[2] * d + row[3] * d_prev + row[4] * z
            d_prev[:] = d
            return OK

        return (self.cuda.enqueue(stream, run),)


class FakeArray:
    """An array of a rehearsed CuPy: takes and gives DLPack, computes at once."""

    def __init__(self, cuda: RehearsedCuda, pointer: int, shape: tuple[int, ...], owner: object = None) -> None:
        self.cuda, self.shape, self.owner = cuda, shape, owner
        self.data = SimpleNamespace(ptr=pointer)

    def get(self) -> np.ndarray:
        self.cuda.drain(1)  # the legacy default stream, on which it was taken
        return view_of_host(self.data.ptr, self.shape, F32).copy()

    def __mul__(self, factor: float) -> FakeArray:
        pointer = self.cuda.cudaMalloc(4 * int(np.prod(self.shape)))[1]
        view_of_host(pointer, self.shape, F32)[...] = self.get() * np.float32(factor)
        return FakeArray(self.cuda, pointer, self.shape)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, 0

    def __dlpack__(self, *, stream: int, max_version: tuple[int, int]) -> Any:
        return dlpack.capsule_of(self.data.ptr, self.shape, F32, (dlpack.CUDA, 0), self, versioned=True)


class FakeCuPy:
    """The module."""

    __version__ = "rehearsed"

    def __init__(self, cuda: RehearsedCuda) -> None:
        self._cuda = cuda
        self.cuda = SimpleNamespace(
            Stream=lambda non_blocking: SimpleNamespace(ptr=cuda.cudaStreamCreateWithFlags(1)[1])
        )

    def from_dlpack(self, array: Any) -> FakeArray:
        taken = dlpack.Taken(array.__dlpack__(stream=1))
        return FakeArray(self._cuda, taken.tensor.pointer, taken.tensor.shape, taken)

    def asarray(self, array: Any) -> FakeArray:
        interface = array.__cuda_array_interface__
        return FakeArray(self._cuda, interface["data"][0], interface["shape"])


def rehearse_kernels() -> dict[str, Any]:
    """The solver's update: launched and replayed; a capture that fails; nothing left."""
    cuda, rng = RehearsedCuda(), np.random.default_rng(0)
    table, shape = rng.uniform(-1, 1, (7, 5)), (2, 6, 8, 8)
    with CudaDevice(runtime=cuda) as device:
        run = Trajectory(device, Compiler(FakeDriver(cuda), None), "update", table, shape)
        found = compare_trajectory(device, run, table, shape)
        failed = ""
        try:
            with run.work.capture("spoilt"):
                run.run()
                device.buffer("too late", (4,), F32)
        except DeviceError as error:
            failed = error.what
        ended = [call.name for call in cuda.calls[-2:]]
        begin = next(i for i, call in enumerate(cuda.calls) if call.name == "cudaStreamBeginCapture")
        hidden = overlap(device, run.run, run.work, mib=1, repeats=1)
    return {
        "timed": sorted(found["seconds"]),
        "mode": cuda.calls[begin].arguments[1].name,
        "while_captured": [call.name for call in cuda.calls[begin : begin + 6]],
        "replay": sorted({call.name for call in cuda.named("cudaGraphLaunch")}),
        "after_a_spoilt_capture": [failed, *ended],
        "overlap": sorted(hidden["seconds"]),
        "left": cuda.left,
    }


def rehearse_denoiser() -> dict[str, Any]:
    """The reference denoiser as a rehearsed plan: bound, captured, replayed, compared."""
    cuda, bundle = RehearsedCuda(), Bundle.open()
    reference = open_backend("onnxruntime", bundle, threads=1)
    trt = RehearsedTensorRT(cuda, reference.run)
    with tempfile.TemporaryDirectory() as scratch, CudaDevice(runtime=cuda) as device:
        planned = _with_plan(bundle, Path(scratch), trt.__version__)
        backend = TensorRTBackend(planned, "tensorrt-rtx", trt=trt, device=device, cache=Path(scratch))
        table = bundle.manifest.sampling.changed(steps=STEPS).table()
        steps = Steps(device, device.stream("steps"), backend, planned, "float32", table, SIZE_PX, 1)
        found = captured_trajectory(steps, reference.run, "float32", repeats=1)
        before = len(cuda.calls)
        seconds = steps.seconds_each(1)
        in_a_step = sorted({call.name for call in cuda.calls[before:]} - {"cudaStreamSynchronize"})
        backend.close()
    share = share_of_peak(seconds, 10**9, 1.0, 1000)["share"]
    return found | {"calls_of_a_step": in_a_step, "share_is_a_quotient": share > 0, "left": cuda.left}


def _with_plan(bundle: Bundle, folder: Path, version: str) -> Bundle:
    spec, sha256 = bundle.manifest.graphs[DENOISER], bundle.manifest.files[bundle.manifest.graphs[DENOISER].file].sha256
    data, side = plan_bytes(DENOISER, spec, version), SIZE_PX // bundle.manifest.stride
    (folder / "plans").mkdir()
    (folder / "plans/d.plan").write_bytes(data)
    profile = {name: (value,) * 3 for name, value in (("batch", 1), ("branches", 1), ("rows", side), ("columns", side))}
    plan = PlanSpec(
        "plans/d.plan", len(data), hashlib.sha256(data).hexdigest(), DENOISER, sha256, sha256, "tensorrt-rtx", version,
        "sm_89", "float32", profile,
    )  # fmt: skip
    return replace(bundle, folder=folder, manifest=replace(bundle.manifest, plans={"d": plan}))


def rehearse_interop() -> dict[str, Any]:
    """With a CuPy that speaks the protocols."""
    cuda = RehearsedCuda()
    with CudaDevice(runtime=cuda) as device:
        found: dict[str, Any] = exchange(device, FakeCuPy(cuda), "cupy")["zero_copy"]
    return found


def rehearse_on_device() -> dict[str, Any]:
    """In the host's memory, with NumPy, two steps."""
    bundle = Bundle.open()
    sampling = bundle.manifest.sampling.changed(steps=STEPS)
    with Engine.open(
        replace(bundle, manifest=replace(bundle.manifest, sampling=sampling)), threads=1, parallel=1
    ) as host:
        return on_device(host, np, size_px=SIZE_PX)


def rehearse_power() -> dict[str, Any]:
    """With an nvidia-smi that says 100 W and no memory clock."""

    def ask(fields: Sequence[str]) -> str:
        return ", ".join("[N/A]" if field == "clocks.mem" else "100" for field in fields)

    found = while_running(lambda: None, 0.05, ask, every_s=0.005)
    return {
        "power_w": found["median"]["power_w"],
        "memory_mhz": found["median"]["memory_mhz"],
        # 100 W over the time of one run: joules x runs a second = watts.
        "watts_again": round(found["joules_per_run"] * found["runs_per_second"], 6),
    }


def rehearse_throughput() -> dict[str, Any]:
    """The sweep on the CPU, two steps; and one that has no time left."""
    bundle = Bundle.open()
    quick = replace(bundle, manifest=replace(bundle.manifest, sampling=bundle.manifest.sampling.changed(steps=1)))
    found = sweep(lambda: Engine.open(quick, threads=1), [(64, 4)])
    late = sweep(lambda: Engine.open(quick, threads=1), [(64, 4)], budget_s=-1)
    return {"settings": list(found["settings"]), "not_reached": late["not_reached"]}


def main() -> int:
    parts = (
        *(rehearse_kernels, rehearse_denoiser, rehearse_interop, rehearse_on_device),
        *(rehearse_power, rehearse_throughput),
    )
    print(json.dumps({part.__name__.removeprefix("rehearse_"): part() for part in parts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

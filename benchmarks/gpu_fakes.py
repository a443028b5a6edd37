"""A CUDA of NumPy that records its calls: ``python -m benchmarks.gpu_fakes`` runs the acceptance's pipeline on it.

Device memory is host memory, a kernel runs when it is launched, and while a stream is captured it is recorded and runs
when the graph is launched. Calls that would spoil a capture fail as CUDA's do. So what is tried here is the order of
calls and the arithmetic; that a GPU does the same is for the acceptance itself to prove. Prints one JSON object.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from benchmarks.gpu_cuda import Cuda, CudaFailure, Trajectory, trajectory_in_numpy

OK, CAPTURE_INVALIDATED, UNSUPPORTED = 0, 901, 900
#: What must not happen while a stream is captured.
SPOILS = ("cudaMalloc", "cudaMallocHost", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaFree")


class Mode(enum.IntEnum):
    """``cudaStreamCaptureMode``."""

    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1


class Kind(enum.IntEnum):
    """``cudaMemcpyKind``."""

    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class FakeCuda:
    """Attributes are functions of the CUDA runtime and driver; each records its name and answers ``(error, ...)``."""

    cudaStreamCaptureMode = Mode
    cudaMemcpyKind = Kind

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.mode: Mode | None = None
        self.recorded: list[Callable[[], None]] | None = None
        self.memory: dict[int, Any] = {}
        self.spoilt = False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def function(*arguments: Any) -> Any:
            self.calls.append(name)
            if self.recorded is not None and name in SPOILS:
                self.spoilt = True
                return (UNSUPPORTED,)
            return getattr(self, f"do_{name}", lambda *_: (OK, len(self.calls)))(*arguments)

        if not name.startswith(("cuda", "cu")):
            raise AttributeError(name)
        function.__name__ = name
        return function

    def do_cudaMalloc(self, size: int) -> tuple[int, int]:
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return OK, ctypes.addressof(buffer)

    do_cudaMallocHost = do_cudaMalloc

    def do_cudaFree(self, pointer: int) -> tuple[int]:
        return (OK if self.memory.pop(pointer, None) is not None else 1,)

    do_cudaFreeHost = do_cudaFree

    def do_cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Kind, stream: int) -> tuple[int]:
        ctypes.memmove(int(target), int(source), size)
        return (OK,)

    def do_cudaMemsetAsync(self, target: int, value: int, size: int, stream: int) -> tuple[int]:
        ctypes.memset(int(target), value, size)
        return (OK,)

    def do_cudaStreamBeginCapture(self, stream: int, mode: Mode) -> tuple[int]:
        self.mode, self.recorded, self.spoilt = mode, [], False
        return (OK,)

    def do_cudaStreamEndCapture(self, stream: int) -> tuple[int, Any]:
        recorded, self.recorded = self.recorded, None
        return (CAPTURE_INVALIDATED, None) if self.spoilt else (OK, recorded)

    def do_cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[int, Any]:
        return OK, list(graph)

    def do_cudaGraphLaunch(self, executable: Any, stream: int) -> tuple[int]:
        for run in executable:
            run()
        return (OK,)

    def do_cudaEventElapsedTime(self, begin: int, end: int) -> tuple[int, float]:
        return OK, 1.0

    def do_cuLaunchKernel(self, kernel: str, *rest: Any) -> tuple[int]:
        pointers = rest[8][0]

        def run() -> None:
            x, d_prev, z = (_floats(pointer, pointers[4]) for pointer in pointers[:3])
            row = _floats(pointers[3], 5)
            d = np.float32(0.5) * x
            x[:] = row[1] * x + row[2] * d + row[3] * d_prev + row[4] * z
            d_prev[:] = d

        if self.recorded is None:
            run()
        else:
            self.recorded.append(run)
        return (OK,)


def _floats(pointer: int, count: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(pointer))


def main() -> int:
    fake = FakeCuda()
    cuda = Cuda(fake, fake, SimpleNamespace())
    rng = np.random.default_rng(0)
    table, shape = rng.uniform(-1, 1, (7, 5)), (2, 6, 8, 8)
    x, z = rng.normal(size=(2, *shape)).astype(np.float32)
    run = Trajectory(cuda, {"update": "update"}, table, shape)
    run.load(x, z)
    run.steps()
    launched = run.fetch()
    start = len(fake.calls)
    with cuda.captured(run.work) as graph:
        run.steps()
    while_captured = fake.calls[start:]
    run.load(x, z)
    fake.cudaGraphLaunch(graph(), run.work)
    replayed = run.fetch()
    failed = ""
    try:
        with cuda.captured(run.work):
            cuda.launch("update", run.work, 1, (0, ctypes.c_void_p))
            fake_malloc = fake.cudaMalloc(4)
            if fake_malloc[0]:
                raise CudaFailure(f"cudaMalloc returned {fake_malloc[0]}")
    except CudaFailure as error:
        failed = str(error)
    ended = fake.calls[-2:]
    run.close()
    expected = trajectory_in_numpy(x, z, table)
    assert fake.mode is not None
    report = {
        "launched_equal": bool(np.array_equal(launched, expected)),
        "replayed_equal": bool(np.array_equal(replayed, expected)),
        "mode": fake.mode.name,
        "while_captured": while_captured,
        "after_a_spoilt_capture": [failed, *ended],
        "left_in_memory": len(fake.memory),
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())

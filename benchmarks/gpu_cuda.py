"""Raw CUDA through cuda-python for the acceptance: kernels from source, pinned copies, streams, events, graphs.

The modules of ``cuda.bindings`` are handed in, so that a test can record what would be called. Nothing of
``cuda.core`` is used: its graph builder crashes on an invalidated capture, and some of its calls hang without a driver.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

SOURCE = r"""
// Philox4x32-10 (Salmon et al. 2011): one block of four words a thread, counter (block, y, channel + 256 step, sample).
extern "C" __global__ void philox(unsigned* out, unsigned blocks, unsigned height, unsigned channels, unsigned step,
                                  unsigned sample, unsigned k0, unsigned k1) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= blocks * height * channels) return;
  unsigned c0 = i % blocks, c1 = i / blocks % height, c2 = i / (blocks * height) + (step << 8), c3 = sample;
  for (int round = 0; round < 10; ++round) {
    unsigned h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
    unsigned h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
    c0 = h1 ^ c1 ^ k0; c1 = l1; c2 = h0 ^ c3 ^ k1; c3 = l0;
    k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
  }
  unsigned* at = out + 4 * i;
  at[0] = c0; at[1] = c1; at[2] = c2; at[3] = c3;
}
// One row of the solver: x' = c_x x + c_d D + c_prev D_prev + c_noise z, and D moves to D_prev. Here D = x / 2.
extern "C" __global__ void update(float* x, float* d_prev, const float* z, const float* row, unsigned n) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float d = 0.5f * x[i];
  x[i] = row[1] * x[i] + row[2] * d + row[3] * d_prev[i] + row[4] * z[i];
  d_prev[i] = d;
}
"""

THREADS = 256


class CudaFailure(RuntimeError):
    """A CUDA call returned an error code."""


@dataclass(frozen=True)
class Cuda:
    """``cuda.bindings.runtime``, ``.driver`` and ``.nvrtc``."""

    runtime: Any
    driver: Any
    nvrtc: Any

    def compile(self, arch: str) -> bytes:
        """:data:`SOURCE` as a cubin for a capability such as ``sm_90``; needs no GPU.

        Products and sums stay apart (``--fmad=false``), so that they round as NumPy's do.
        """
        program = call(self.nvrtc.nvrtcCreateProgram, SOURCE.encode(), b"acceptance.cu", 0, None, None)
        call(self.nvrtc.nvrtcCompileProgram, program, 2, [f"--gpu-architecture={arch}".encode(), b"--fmad=false"])
        cubin = bytes(call(self.nvrtc.nvrtcGetCUBINSize, program))
        call(self.nvrtc.nvrtcGetCUBIN, program, cubin)
        return cubin

    def kernels(self, cubin: bytes) -> dict[str, Any]:
        """Kernels of a cubin by name; the device's context must be current."""
        module = call(self.driver.cuModuleLoadData, cubin)
        return {name: call(self.driver.cuModuleGetFunction, module, name.encode()) for name in ("philox", "update")}

    def launch(self, kernel: Any, stream: Any, threads: int, *arguments: tuple[Any, Any]) -> None:
        """One kernel over ``threads`` threads; arguments as (value, ctypes type)."""
        values, types = zip(*arguments, strict=True)
        blocks = -(-threads // THREADS)
        call(self.driver.cuLaunchKernel, kernel, blocks, 1, 1, THREADS, 1, 1, 0, stream, (values, types), 0)

    @contextmanager
    def captured(self, stream: Any) -> Iterator[Callable[[], Any]]:
        """Records a stream, in thread-local mode so that other threads may go on; gives the executable graph after.

        A capture that fails is still ended, and the error is cleared: the stream stays usable.
        """
        runtime = self.runtime
        made: list[Any] = []
        call(runtime.cudaStreamBeginCapture, stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            yield lambda: made[0]
        except BaseException:
            runtime.cudaStreamEndCapture(stream)
            runtime.cudaGetLastError()
            raise
        graph = call(runtime.cudaStreamEndCapture, stream)
        made.append(call(runtime.cudaGraphInstantiate, graph, 0))
        call(runtime.cudaGraphDestroy, graph)


def call(function: Any, *arguments: Any) -> Any:
    """Calls and unpacks: ``(error,)`` -> None, ``(error, value)`` -> value.

    Raises:
        CudaFailure: the error code is not zero.
    """
    error, *values = function(*arguments)
    if int(error) != 0:
        raise CudaFailure(f"{function.__name__} returned {error!r}")
    return values[0] if values else None


class Trajectory:
    """The solver's update over a table, on two streams: copies on one, kernels on the other, events between them."""

    def __init__(self, cuda: Cuda, kernels: dict[str, Any], table: np.ndarray, shape: tuple[int, ...]) -> None:
        self.cuda, self.kernel, self.table, self.shape = cuda, kernels["update"], table.astype(np.float32), shape
        self.bytes = 4 * int(np.prod(shape))
        runtime = cuda.runtime
        self.copies, self.work = (call(runtime.cudaStreamCreateWithFlags, 1) for _ in range(2))  # 1: non-blocking
        self.ready, self.begin, self.end = (call(runtime.cudaEventCreate) for _ in range(3))
        self.pinned = call(runtime.cudaMallocHost, self.bytes)
        self.x, self.d_prev, self.z = (call(runtime.cudaMalloc, self.bytes) for _ in range(3))
        self.rows = call(runtime.cudaMalloc, self.table.nbytes)

    def load(self, x: np.ndarray, z: np.ndarray) -> None:
        """Start and noise to the device through pinned memory; the kernels' stream waits for an event, not the host."""
        runtime, kind = self.cuda.runtime, self.cuda.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        for target, array in ((self.x, x), (self.z, z)):
            ctypes.memmove(int(self.pinned), np.ascontiguousarray(array, np.float32).ctypes.data, self.bytes)
            call(runtime.cudaMemcpyAsync, target, self.pinned, self.bytes, kind, self.copies)
            call(runtime.cudaStreamSynchronize, self.copies)  # the one pinned buffer is used again
        call(runtime.cudaMemcpyAsync, self.rows, self.table.ctypes.data, self.table.nbytes, kind, self.copies)
        call(runtime.cudaMemsetAsync, self.d_prev, 0, self.bytes, self.copies)
        call(runtime.cudaEventRecord, self.ready, self.copies)
        call(runtime.cudaStreamWaitEvent, self.work, self.ready, 0)

    def steps(self) -> None:
        """Every row of the table: launches only; nothing is allocated, synchronised or copied."""
        pointer = ctypes.c_void_p
        for i in range(len(self.table)):
            row = int(self.rows) + i * self.table.strides[0]
            arguments = [(int(p), pointer) for p in (self.x, self.d_prev, self.z)] + [(row, pointer)]
            n = self.bytes // 4
            self.cuda.launch(self.kernel, self.work, n, *arguments, (n, ctypes.c_uint))

    def fetch(self) -> np.ndarray:
        """The state after what was launched: [*shape] float32."""
        runtime, out = self.cuda.runtime, np.empty(self.shape, np.float32)
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(runtime.cudaMemcpyAsync, self.pinned, self.x, self.bytes, kind, self.work)
        call(runtime.cudaStreamSynchronize, self.work)
        ctypes.memmove(out.ctypes.data, int(self.pinned), self.bytes)
        return out

    def milliseconds(self, launch: Callable[[], None], repeats: int) -> float:
        """Device time of one launch, from two events around ``repeats`` of them."""
        runtime = self.cuda.runtime
        call(runtime.cudaEventRecord, self.begin, self.work)
        for _ in range(repeats):
            launch()
        call(runtime.cudaEventRecord, self.end, self.work)
        call(runtime.cudaEventSynchronize, self.end)
        return float(call(runtime.cudaEventElapsedTime, self.begin, self.end)) / repeats

    def close(self) -> None:
        """Frees memory, events and streams."""
        runtime = self.cuda.runtime
        call(runtime.cudaFreeHost, self.pinned)
        for pointer in (self.x, self.d_prev, self.z, self.rows):
            call(runtime.cudaFree, pointer)
        for event in (self.ready, self.begin, self.end):
            call(runtime.cudaEventDestroy, event)
        for stream in (self.copies, self.work):
            call(runtime.cudaStreamDestroy, stream)


def trajectory_in_numpy(x: np.ndarray, z: np.ndarray, table: np.ndarray) -> np.ndarray:
    """What :class:`Trajectory` computes, in the same order of the same float32 operations."""
    d_prev = np.zeros_like(x)
    for row in table.astype(np.float32):
        d = np.float32(0.5) * x
        x = row[1] * x + row[2] * d + row[3] * d_prev + row[4] * z
        d_prev = d
    return x

"""Kernels from source for the acceptance, on the engine's own device: streams, buffers, events and graphs are its.

The modules of ``cuda.bindings`` are handed in, so that a test can record what would be called.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.timer import measure

from msdm_engine.devices.contract import Stream, Work
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.sampling.noise import gaussian

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
REPEATS = 20
F32 = np.dtype(np.float32)


class CudaFailure(RuntimeError):
    """A call of the driver or of NVRTC returned an error code."""


def call(function: Any, *arguments: Any) -> Any:
    """Calls and unpacks: ``(error,)`` -> None, ``(error, value)`` -> value; raises CudaFailure."""
    error, *values = function(*arguments)
    if int(error) != 0:
        raise CudaFailure(f"{function.__name__} returned {error!r}")
    return values[0] if values else None


@dataclass(frozen=True)
class Compiler:
    """``cuda.bindings.driver`` and ``.nvrtc``."""

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

    def launch(self, kernel: Any, stream: Stream, threads: int, *arguments: tuple[Any, Any]) -> None:
        """One kernel over ``threads`` threads; arguments as (value, ctypes type)."""
        values, types = zip(*arguments, strict=True)
        blocks = -(-threads // THREADS)
        call(self.driver.cuLaunchKernel, kernel, blocks, 1, 1, THREADS, 1, 1, 0, stream.handle, (values, types), 0)


class Trajectory:
    """The solver's update over a table, on two streams: copies on one, kernels on the other, events between them."""

    def __init__(
        self, device: CudaDevice, compiler: Compiler, kernel: Any, table: np.ndarray, shape: tuple[int, ...]
    ) -> None:
        self.steps, self.n = len(table), int(np.prod(shape))
        self.copies, self.work = device.stream("copies"), device.stream("work")
        self.ready = device.event("ready")
        self.host = {name: device.buffer(f"{name} on the host", shape, F32, "host") for name in ("x", "z", "zeros")}
        self.x, self.d_prev, self.z = (device.buffer(name, shape, F32) for name in ("x", "d_prev", "z"))
        self.rows = device.buffer("rows", table.shape, F32)
        self.host_rows = device.buffer("rows on the host", table.shape, F32, "host")
        self.host_rows.array()[:] = table
        self._updates = [self._update(compiler, kernel, i) for i in range(self.steps)]

    def _update(self, compiler: Compiler, kernel: Any, step: int) -> Work:
        row, pointer = self.rows.part(f"row {step}", (5,), 20 * step), ctypes.c_void_p
        arguments = [(buffer.pointer, pointer) for buffer in (self.x, self.d_prev, self.z, row)]

        def run(stream: Stream) -> None:
            compiler.launch(kernel, stream, self.n, *arguments, (self.n, ctypes.c_uint))

        return Work("update", (self.x, self.d_prev, self.z, row), (self.x, self.d_prev), run)

    def load(self, x: np.ndarray, z: np.ndarray) -> None:
        """Start and noise to the device through pinned memory; the kernels' stream waits for an event, not the host."""
        self.host["x"].array()[:], self.host["z"].array()[:] = x, z
        for target, source in ((self.x, "x"), (self.z, "z"), (self.d_prev, "zeros")):
            self.copies.copy(target, self.host[source])
        self.copies.copy(self.rows, self.host_rows)
        self.copies.record(self.ready)
        self.work.wait(self.ready)

    def run(self) -> None:
        """Every row of the table: launches only; nothing is allocated, synchronised or copied."""
        for update in self._updates:
            self.work.submit(update)

    def fetch(self) -> np.ndarray:
        """The state after what was launched: [*shape] float32."""
        self.work.copy(self.host["x"], self.x)
        self.work.synchronize()
        return self.host["x"].array().copy()


def compare_trajectory(
    device: CudaDevice, run: Trajectory, table: np.ndarray, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Launched, then captured and replayed: both are NumPy's to the bit; and what each takes.

    Raises:
        AssertionError: they are not.
    """
    x, z = (np.stack([gaussian(1, i, step, *shape[1:]) for i in range(shape[0])]) for step in (0, 1))
    expected = trajectory_in_numpy(x, z, table)
    run.load(x, z)
    run.run()
    assert np.array_equal(run.fetch(), expected), "launched kernels differ from NumPy"
    with run.work.capture("trajectory") as graph:
        run.run()
    trajectory = graph()
    run.load(x, z)
    run.work.replay(trajectory)
    assert np.array_equal(run.fetch(), expected), "the replayed graph differs from NumPy"

    def launched() -> None:
        run.run()
        run.work.synchronize()

    def replayed() -> None:
        run.work.replay(trajectory)
        run.work.synchronize()

    times = measure({"launched": launched, "replayed": replayed}, warmups=2, repeats=REPEATS)
    return {"seconds": {name: timing.as_dict() for name, timing in times.items()}}


def trajectory_in_numpy(x: np.ndarray, z: np.ndarray, table: np.ndarray) -> np.ndarray:
    """What :class:`Trajectory` computes, in the same order of the same float32 operations."""
    d_prev = np.zeros_like(x)
    for row in table.astype(np.float32):
        d = np.float32(0.5) * x
        x = row[1] * x + row[2] * d + row[3] * d_prev + row[4] * z
        d_prev = d
    return x

"""The real denoiser on the engine's device: captured, replayed, timed, and copies that overlap it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks.timer import measure

from msdm_engine.bundle.graph_shapes import shapes_of
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER, DENOISER_INPUTS, DENOISER_OUTPUTS, ROW
from msdm_engine.devices.contract import Buffer
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.cuda_stream import CudaStream

F32 = np.dtype(np.float32)
#: Relative L2 error of a trajectory's end that is taken for agreement with float32 on the CPU; see gpu_torch.
TOLERANCES = {"float32": 1e-3, "fp16": 3e-2, "bf16": 3e-1}
Run = Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]]


class Steps:
    """A trajectory of the denoiser, one branch, over ``table``; everything is bound when this is made.

    Args:
        stream: the one that it runs on; ONNX Runtime's session must have been opened on it.
    """

    def __init__(
        self, device: CudaDevice, stream: CudaStream, backend: Any, bundle: Bundle, precision: str,
        table: np.ndarray, size_px: int, batch: int,
    ) -> None:  # fmt: skip
        spec = bundle.in_precision(precision)[DENOISER]
        side = size_px // bundle.manifest.stride
        shapes = shapes_of(DENOISER, spec.inputs, {"batch": batch, "branches": 1, "rows": side, "columns": side})
        rng = np.random.default_rng(0)
        self.given = {t.name: rng.normal(0, 0.1, shapes[t.name]).astype(t.dtype) for t in spec.inputs}
        self.given["guidance"][:] = 1
        self.given["noise"][:] = 0
        self.given["denoised_prev"][:] = 0
        self.given["state"] *= np.float32(10 * table[0, 0])
        self.table, self.stream = table.astype(np.float32), stream
        self.buffers: dict[str, Buffer] = {}
        for tensor in spec.inputs:
            self.buffers[tensor.name] = device.buffer(tensor.name, shapes[tensor.name], np.dtype(tensor.dtype))
        for name in DENOISER_OUTPUTS:
            self.buffers[name] = device.buffer(name, shapes["state"], F32)
        self.host = {
            name: device.buffer(f"{name} on the host", buffer.shape, buffer.dtype, "host")
            for name, buffer in self.buffers.items()
        }
        self.rows = device.buffer("rows", self.table.shape, F32)
        self.host_rows = device.buffer("rows on the host", self.table.shape, F32, "host")
        self.host_rows.array()[:] = self.table
        self.work = backend.bind(DENOISER, device, self.buffers)

    def load(self) -> None:
        """Start and conditions to the device."""
        for name, value in self.given.items():
            self.host[name].array()[:] = value
            self.stream.copy(self.buffers[name], self.host[name])
        self.stream.copy(self.rows, self.host_rows)

    def run(self) -> None:
        """Every step: copies on the device and the denoiser; may be captured if its work may."""
        state, previous = DENOISER_INPUTS[:2]
        for i in range(len(self.table)):
            self.stream.copy(self.buffers[ROW], self.rows.part(f"row {i}", (5,), 20 * i))
            self.stream.submit(self.work)
            for target, source in ((state, DENOISER_OUTPUTS[0]), (previous, DENOISER_OUTPUTS[1])):
                self.stream.copy(self.buffers[target], self.buffers[source])

    def fetch(self) -> np.ndarray:
        """The state after what was submitted."""
        host = self.host["state"]
        self.stream.copy(host, self.buffers["state"])
        self.stream.synchronize()
        return host.array().copy()

    def seconds_each(self, repeats: int) -> float:
        """Of one :meth:`run`, many submitted together: the median of several such rounds."""

        def many() -> None:
            for _ in range(repeats):
                self.run()
            self.stream.synchronize()

        return measure({"run": many}, warmups=1, repeats=5)["run"].median_s / repeats

    def expected(self, run: Run) -> np.ndarray:
        """The same by another backend, whose graphs take the same types."""
        given = dict(self.given)
        for row in self.table:
            out = run(DENOISER, given | {ROW: row})
            given["state"], given["denoised_prev"] = (out[name] for name in DENOISER_OUTPUTS)
        return given["state"]


def captured_trajectory(steps: Steps, reference: Run, precision: str, repeats: int = 9) -> dict[str, Any]:
    """Submitted and, where that can be, replayed; both equal to the bit, and near the reference.

    Raises:
        AssertionError: they are not.
    """
    expected = steps.expected(reference)
    steps.load()
    steps.run()
    submitted = steps.fetch()
    error = float(np.linalg.norm(submitted - expected) / np.linalg.norm(expected))
    assert np.isfinite(submitted).all() and error < TOLERANCES[precision], f"{error:.2e} from the reference"
    found: dict[str, Any] = {"steps": len(steps.table), "relative_l2": error, "captured": steps.work.capturable}

    def waited(run: Callable[[], None]) -> Callable[[], None]:
        def both() -> None:
            run()
            steps.stream.synchronize()

        return both

    functions, trajectory = {"submitted": waited(steps.run)}, None
    if steps.work.capturable:
        with steps.stream.capture("trajectory") as graph:
            steps.run()
        trajectory = graph()
        steps.load()
        steps.stream.replay(trajectory)
        assert np.array_equal(steps.fetch(), submitted), "the replayed trajectory differs from the submitted one"
        functions["replayed"] = waited(lambda: steps.stream.replay(trajectory))
    steps.load()
    found["seconds"] = {name: t.as_dict() for name, t in measure(functions, warmups=2, repeats=repeats).items()}
    if trajectory is not None:
        trajectory.free()  # before the backend, whose memory it holds
    return found


def overlap(
    device: CudaDevice, compute: Callable[[], None], work: CudaStream, mib: int, repeats: int = 9
) -> dict[str, Any]:
    """Copies in and out on streams of their own beside ``compute`` on ``work``: alone, one after another, at once.

    ``hidden`` is the share of the shorter of the two that costs no time when both run: 0 none, 1 all of it.

    Raises:
        AssertionError: what was copied out is not what was copied in.
    """
    shape = (mib * 2**18,)
    there, back = device.stream("copies in"), device.stream("copies out")
    source, target = (device.buffer(name, shape, F32, "host") for name in ("source", "target"))
    inside, outside = (device.buffer(name, shape, F32) for name in ("inside", "outside"))
    source.array()[:] = np.arange(shape[0], dtype=np.float32)

    def copies() -> None:
        there.copy(inside, source)
        back.copy(target, outside)

    def wait() -> None:
        for stream in (there, back, work):
            stream.synchronize()

    def alone(run: Callable[[], None]) -> Callable[[], None]:
        def both() -> None:
            run()
            wait()

        return both

    def in_turns() -> None:
        alone(copies)()
        alone(compute)()

    def at_once() -> None:
        compute()
        copies()
        wait()

    functions = {"copies": alone(copies), "compute": alone(compute), "in turns": in_turns, "at once": at_once}
    times = measure(functions, warmups=2, repeats=repeats)
    there.copy(outside, inside)
    wait()
    back.copy(target, outside)
    wait()
    assert np.array_equal(target.array(), source.array()), "what was copied out is not what was copied in"
    copy_s, compute_s, both_s = (times[name].median_s for name in ("copies", "compute", "at once"))
    hidden = (copy_s + compute_s - both_s) / max(min(copy_s, compute_s), 1e-9)
    for buffer in (source, target, inside, outside):
        buffer.free()
    return {"mib_each_way": mib, "hidden": hidden, "seconds": {name: t.as_dict() for name, t in times.items()}}

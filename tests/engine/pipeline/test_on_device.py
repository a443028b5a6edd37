"""Results that stay on the device: the same numbers without a copy, and nobody's memory is written while it is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine import Bundle, Engine, PairRequest
from msdm_engine.devices import dlpack
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.simulated import Operation, SimulatedDevice
from msdm_engine.errors import DeviceError, NumericsError, RequestError
from msdm_engine.pipeline.handover import pictures_from_states
from msdm_engine.pipeline.on_device import DeviceBatch
from msdm_engine.pipeline.runtime import Runtime
from msdm_engine.rehearsal.backends import RehearsedBackend, SimulatedBackend
from msdm_engine.rehearsal.cuda import RehearsedCuda
from msdm_engine.sampling.guidance import Guidance

ROOT = Path(__file__).resolve().parents[3]
#: Three segments, a kept branch, noise that goes round; 20 px are padded to the stride of 16.
GUIDED, SOLVER, STEPS, BATCH, SIDE = Guidance(0.5, 0.3, 0.7, sigma_low=0.05, sigma_high=10), "euler-ancestral", 4, 2, 20


def asked(count: int, side: int = SIDE) -> list[PairRequest]:
    return [PairRequest(index, 3, side, side) for index in range(count)]


def batches(engine: Engine, requests: list[PairRequest]) -> Iterator[DeviceBatch]:
    sampling = engine.bundle.manifest.sampling.changed(steps=STEPS, solver=SOLVER, batch=BATCH)
    return engine.sample_on_device(requests, sampling, GUIDED)


def pictures(folder: Path, backend: Any, requests: list[PairRequest]) -> list[np.ndarray]:
    """What the host gives."""
    with Engine(Bundle.open(folder), backend) as engine:
        sampling = engine.bundle.manifest.sampling.changed(steps=STEPS, solver=SOLVER, batch=BATCH)
        return [pair.image for pair in engine.sample(requests, sampling, GUIDED)]


def simulated(folder: Path, backend: Any, device: SimulatedDevice) -> Engine:
    bundle = Bundle.open(folder)
    engine = Engine(bundle, SimulatedBackend(backend, bundle), device)
    engine._runtime = Runtime(device, bundle, engine.backend, concurrent=True)
    return engine


def read_on_a_stream(
    engine: Engine, requests: list[PairRequest], device: SimulatedDevice, *, names_its_stream: bool = True
) -> list[np.ndarray]:
    """The pictures, copied by a reader's stream, for which the host waits only when everything is over."""
    reader, copies = device.stream("reader"), list[tuple[Any, DeviceBatch]]()
    for batch in batches(engine, requests):
        state = batch.image.buffer_on(reader)
        copies.append((device.buffer(f"copy {len(copies)}", state.shape, state.dtype, "host"), batch))
        reader.copy(copies[-1][0], state)
        batch.release(reader if names_its_stream else None)
    reader.synchronize()
    states = [copy.array()[: len(batch.requests), :, :SIDE, :SIDE] for copy, batch in copies]
    return [picture for state in states for picture in pictures_from_states(state)]


# --- under strict stream semantics ------------------------------------------------------------------------------


@pytest.mark.parametrize("unified", [True, False])
def test_a_reader_on_a_stream_of_its_own_is_never_overtaken(
    unified: bool, bundle_folder: Path, fake_backend: Any
) -> None:
    device = SimulatedDevice(unified=unified)
    with simulated(bundle_folder, fake_backend, device) as engine:
        found = read_on_a_stream(engine, asked(7), device)
    assert [str(finding) for finding in device.findings] == []
    assert all(map(np.array_equal, found, pictures(bundle_folder, fake_backend, asked(7))))


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("removed", [("record", "reader"), ("wait", "compute")])
def test_the_event_of_the_release_is_missed(
    removed: tuple[str, str], slot: int, bundle_folder: Path, fake_backend: Any
) -> None:
    operation: Operation = (*removed, f"freed[{slot}]")
    device = SimulatedDevice(removed=operation)
    with simulated(bundle_folder, fake_backend, device) as engine:
        read_on_a_stream(engine, asked(7), device)
    kinds = {(finding.kind, finding.buffer) for finding in device.findings}
    assert kinds == {("overwrite while read", f"final[{slot}]")}


def test_a_reader_that_does_not_name_its_stream_is_found(bundle_folder: Path, fake_backend: Any) -> None:
    device = SimulatedDevice()
    with simulated(bundle_folder, fake_backend, device) as engine:
        read_on_a_stream(engine, asked(7), device, names_its_stream=False)
    assert {finding.kind for finding in device.findings} == {"overwrite while read"}


def test_a_batch_that_is_held_is_not_written_over(bundle_folder: Path, fake_backend: Any) -> None:
    """Its lane is left alone until it is released, also when its iterator is gone; then it is used again."""
    device = SimulatedDevice(unified=True)
    with simulated(bundle_folder, fake_backend, device) as engine:
        held = next(batches(engine, asked(7)))
        before = held.image.numpy()
        for batch in batches(engine, [PairRequest(9, 9, SIDE, SIDE)] * 6):
            batch.release()
        assert np.array_equal(held.image.numpy(), before)
        assert engine._runtime.opened == 2
        held.release()
        for batch in batches(engine, asked(6)):
            batch.release()
        again = batches(engine, asked(2))
        next(again)
        next(batches(engine, asked(2)))
        assert engine._runtime.opened == 2
    assert [str(finding) for finding in device.findings] == []


def test_an_error_leaves_a_batch_that_is_held(bundle_folder: Path, fake_backend: Any) -> None:
    """Its lane is closed when it is released, and not before."""
    device = SimulatedDevice(unified=True)
    with simulated(bundle_folder, fake_backend, device) as engine:
        running = batches(engine, asked(3))
        held = next(running)
        before = held.image.numpy()
        with pytest.raises(DeviceError, match="the batch of pair 0 is still held") as caught:
            next(running)
        assert "batch.release(stream)" in str(caught.value.hint)
        next(batches(engine, asked(2)))
        assert np.array_equal(held.image.numpy(), before)
        held.release()
        next(batches(engine, asked(2)))
        assert not engine._runtime._retired
    assert [str(finding) for finding in device.findings] == []


def test_a_value_that_is_not_finite_is_never_handed_out(bundle_folder: Path, fake_backend: Any) -> None:
    fake_backend.poison = {("denoiser", STEPS + 2): 0}
    device = SimulatedDevice()
    with simulated(bundle_folder, fake_backend, device) as engine:
        running = batches(engine, asked(6))
        next(running).release()
        with pytest.raises(NumericsError, match=rf"pair 2, seed 3, step 2 of {STEPS} \(noise level"):
            next(running)
    assert [str(finding) for finding in device.findings] == []


# --- the iterator -----------------------------------------------------------------------------------------------


def test_the_last_batch_may_be_kept_until_the_engine_is_closed(bundle_folder: Path, fake_backend: Any) -> None:
    with Engine(Bundle.open(bundle_folder), fake_backend) as engine:
        (batch,) = batches(engine, asked(1))
        assert [request.index for request in batch.requests] == [0]
        assert batch.image.shape == (1, 3, SIDE, SIDE)  # a short batch has the rows that were asked for
        view = np.from_dlpack(batch.image)
        expected = view.copy()
    assert np.array_equal(view, expected)  # whoever has taken it keeps the memory
    for use in (batch.image.numpy, lambda: np.from_dlpack(batch.maps)):
        with pytest.raises(DeviceError, match=r"'(image|maps)' of the batch of pair 0 is gone: the engine is closed"):
            use()


def test_an_array_is_refused_after_the_release(fake_engine: Engine) -> None:
    with next(batches(fake_engine, asked(2))) as batch:
        assert "holds the batch of pair 0" in repr(batch.image)
    for array in (batch.image, batch.maps):
        with pytest.raises(DeviceError, match="is gone: it was released"):
            np.from_dlpack(array)


def test_batches_side_by_side_are_refused(bundle_folder: Path, fake_backend: Any) -> None:
    with (
        Engine(Bundle.open(bundle_folder), fake_backend, parallel=2) as engine,
        pytest.raises(RequestError, match="from 2 batches side by side") as caught,
    ):
        engine.sample_on_device(asked(2))
    assert caught.value.hint == "Engine.open(..., parallel=1)"


def test_torch_and_numpy_see_the_host_memory_of_the_last_state(
    fake_engine: Engine, bundle_folder: Path, fake_backend: Any
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    expected = pictures(bundle_folder, fake_backend, asked(5))
    found: list[np.ndarray] = []
    for batch in batches(fake_engine, asked(5)):
        image, maps = torch.from_dlpack(batch.image), np.from_dlpack(batch.maps)
        state = batch.image._buffer
        # RGB are channels 0 to 2 of the padded state [B, 6, 32, 32], the maps 3 to 5 begin 3 planes later.
        assert image.data_ptr() == state.pointer and maps.ctypes.data == state.pointer + 3 * 32 * 32 * 4
        assert image.stride() == (6 * 32 * 32, 32 * 32, 32, 1)
        found += [*np.clip(np.rint((image.numpy() + 1) * 127.5), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)]
        batch.release()
    assert len(found) == 5 and all(map(np.array_equal, found, expected))


def test_the_example_of_the_page(reference: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("onnxruntime", reason="needs the extra cpu or gpu")
    page = (ROOT / "docs" / "runtime.md").read_text()
    (example,) = re.findall(r"```python\n(.*?sample_on_device.*?)```", page, re.DOTALL)
    exec(compile(example, "docs/runtime.md", "exec"), {})
    assert capsys.readouterr().out == "torch.Size([4, 3, 64, 64])\n" * 2


# --- on a GPU of host memory, whose work is done as late as can be ----------------------------------------------


class Library:
    """What PyCUDA, CuPy and PyTorch do with an array: an address by one of the two protocols, read on their stream."""

    def __init__(self, kind: str, runtime: RehearsedCuda, device: CudaDevice) -> None:
        self.kind, self.device = kind, device
        self.handle = runtime.cudaStreamCreateWithFlags(1)[1]
        self.kept: list[Any] = []

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle

    def stream(self) -> Any:
        """As it is given to ``release``: PyCUDA has a handle only."""
        return self.handle if self.kind == "pycuda" else self

    def read(self, array: Any) -> Any:
        """A copy of the array's rows, which lies on the host when the stream is done."""
        if self.kind == "torch":
            taken = dlpack.Taken(array.__dlpack__(stream=self.handle, max_version=(1, 0)))
            pointer, shape, strides = taken.tensor.pointer, taken.tensor.shape, taken.tensor.strides
            self.kept.append(taken)
        else:
            interface = array.__cuda_array_interface__
            pointer, shape = interface["data"][0], interface["shape"]
            strides = tuple(step // 4 for step in interface["strides"])
        assert strides == (6 * 32 * 32, 32 * 32, 32, 1) and shape[1:] == (3, SIDE, SIDE)
        reader = self.device.borrow_stream(self.kind, self.handle)
        whole = (shape[0] * strides[0],)
        host = self.device.buffer("read", whole, np.dtype(np.float32), "host")
        reader.copy(host, self.device.borrow_buffer("theirs", whole, host.dtype, pointer, array))
        return host, shape[0]

    def pictures(self, read: tuple[Any, int]) -> list[np.ndarray]:
        host, rows = read
        return [*pictures_from_states(host.array().reshape(rows, 6, 32, 32)[:, :, :SIDE, :SIDE])]


@pytest.mark.parametrize("kind", ["pycuda", "cupy", "torch"])
def test_arrays_on_a_gpu_are_read_on_the_stream_of_others(kind: str, bundle_folder: Path, fake_backend: Any) -> None:
    """Nothing is copied or waited for when a batch is taken and released, and what is read late is not overwritten."""
    bundle, runtime = Bundle.open(bundle_folder), RehearsedCuda()
    device = CudaDevice(runtime=runtime)
    library, expected = Library(kind, runtime, device), pictures(bundle_folder, fake_backend, asked(8))
    read, made = [], 0
    with Engine(bundle, RehearsedBackend(fake_backend, bundle, runtime), device) as engine:
        for number, batch in enumerate(batches(engine, asked(8))):
            read.append(library.read(batch.image))
            since = len(runtime.calls)
            batch.release(library.stream())
            assert [call.name for call in runtime.calls[since:]] == ["cudaSetDevice", "cudaEventRecord"]
            if number == 1:
                made = len(runtime.named("cudaEventCreateWithFlags"))
        assert len(runtime.named("cudaEventCreateWithFlags")) == made  # none for a release
        runtime.cudaStreamSynchronize(library.handle)
        found = [picture for one in read for picture in library.pictures(one)]
        assert len(found) == 8 and all(map(np.array_equal, found, expected))
        for host, _ in read:
            host.free()
        library.kept.clear()
    runtime.cudaStreamDestroy(library.handle)
    assert runtime.left == 0


def test_the_steps_wait_for_a_reader_and_the_host_does_not(bundle_folder: Path, fake_backend: Any) -> None:
    bundle, runtime = Bundle.open(bundle_folder), RehearsedCuda()
    device = CudaDevice(runtime=runtime)
    with Engine(bundle, RehearsedBackend(fake_backend, bundle, runtime), device) as engine:
        reader = device.stream("reader")
        for batch in batches(engine, asked(8)):
            batch.release(reader)
        compute, freed = (
            engine._runtime.streams.compute.handle,
            {call.arguments[0] for call in runtime.named("cudaEventRecord") if call.arguments[1] == reader.handle},
        )
        waits = [call.arguments[:2] for call in runtime.named("cudaStreamWaitEvent") if call.arguments[1] in freed]
        assert [stream for stream, _ in waits] == [compute] * 2  # batches 2 and 3 lie where 0 and 1 did
        assert not [call for call in runtime.named("cudaEventSynchronize") if call.arguments[0] in freed]


def test_arrays_on_a_closed_gpu_are_refused(bundle_folder: Path, fake_backend: Any) -> None:
    bundle, runtime = Bundle.open(bundle_folder), RehearsedCuda()
    with Engine(bundle, RehearsedBackend(fake_backend, bundle, runtime), CudaDevice(runtime=runtime)) as engine:
        held = next(batches(engine, asked(2)))
    with pytest.raises(DeviceError, match="is gone: the engine is closed"):
        held.image.__dlpack__(stream=-1)

"""ONNX Runtime on buffers: the same bytes as with arrays, and what is refused instead of read wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from msdm_engine import Bundle
from msdm_engine.contract import CONDITIONER
from msdm_engine.devices.contract import Buffer
from msdm_engine.devices.host import HostDevice
from msdm_engine.errors import BackendError, DeviceError, DeviceMemoryError, RequestError

pytest.importorskip("onnxruntime", reason="needs the extra cpu or gpu")

from msdm_engine.backends.onnxruntime import OnnxRuntimeBackend
from msdm_engine.backends.providers import Provider


@pytest.fixture
def backend(reference: Bundle) -> Iterator[OnnxRuntimeBackend]:
    opened = OnnxRuntimeBackend(reference, threads=1)
    yield opened
    opened.close()


@pytest.fixture
def host() -> Iterator[HostDevice]:
    with HostDevice() as device:
        yield device


def conditions(bundle: Bundle, samples: int = 2) -> dict[str, np.ndarray]:
    """Inputs of the conditioner at 32 x 48 px."""
    sizes: dict[int | str, int] = {"samples": samples, "16*rows": 32, "16*columns": 48}
    rng = np.random.default_rng(0)
    return {
        tensor.name: rng.normal(size=[sizes.get(n) or int(n) for n in tensor.shape]).astype(np.float32)
        for tensor in bundle.manifest.graphs[CONDITIONER].inputs
    }


def bound(host: HostDevice, arrays: dict[str, np.ndarray]) -> dict[str, Buffer]:
    buffers: dict[str, Buffer] = {}
    for name, value in arrays.items():
        buffers[name] = host.buffer(name, value.shape, value.dtype)
        buffers[name].array()[...] = value
    return buffers


def test_bound_graphs_give_the_bytes_of_run(backend: OnnxRuntimeBackend, reference: Bundle, host: HostDevice) -> None:
    given = conditions(reference)
    expected = backend.run(CONDITIONER, given)
    buffers = bound(host, given | {name: np.zeros_like(value) for name, value in expected.items()})
    work, stream = backend.bind(CONDITIONER, host, buffers), host.stream("s")
    assert {buffer.name for buffer in work.reads} == set(given) and {b.name for b in work.writes} == set(expected)
    for _ in range(2):
        stream.submit(work)
        stream.synchronize()
        assert all(np.array_equal(buffers[name].array(), value) for name, value in expected.items())
        for name in expected:
            buffers[name].array().fill(0)


@pytest.mark.parametrize("wrong", ["missing", "type", "rank", "size"])
def test_buffers_that_are_not_the_tensors_are_refused(
    wrong: str, backend: OnnxRuntimeBackend, reference: Bundle, host: HostDevice
) -> None:
    given = conditions(reference)
    arrays = given | backend.run(CONDITIONER, given)
    match wrong:
        case "missing":
            del arrays["colour"]
        case "type":
            arrays["colour"] = arrays["colour"].astype(np.float16)
        case "rank":
            arrays["colour"] = arrays["colour"][None]
        case "size":
            arrays["colour"] = arrays["colour"][:, :5]
    with pytest.raises(DeviceError, match="no buffer for 'colour'" if wrong == "missing" else "is no 'colour' of"):
        backend.bind(CONDITIONER, host, bound(host, arrays))


def test_an_output_of_another_size_fails_when_it_runs(
    backend: OnnxRuntimeBackend, reference: Bundle, host: HostDevice
) -> None:
    given = conditions(reference)
    outputs = {name: value[:1] for name, value in backend.run(CONDITIONER, given).items()}
    stream = host.stream("s")
    stream.submit(backend.bind(CONDITIONER, host, bound(host, given | outputs)))
    with pytest.raises(BackendError, match=f"ONNX Runtime failed in the graph '{CONDITIONER}'"):
        stream.synchronize()


def test_a_graph_that_is_not_open_is_named(backend: OnnxRuntimeBackend, host: HostDevice) -> None:
    with pytest.raises(BackendError, match="'painter' is not open"):
        backend.bind("painter", host, {})


def test_memory_of_a_gpu_is_not_the_cpu_s(backend: OnnxRuntimeBackend) -> None:
    with pytest.raises(DeviceError, match="does not work in the memory of a device of kind 'cuda'"):
        backend.bind(CONDITIONER, Gpu(), {})  # type: ignore[arg-type]


def test_a_stream_is_for_providers_of_a_gpu(reference: Bundle) -> None:
    with pytest.raises(RequestError, match="CPUExecutionProvider takes no stream"):
        OnnxRuntimeBackend(reference, threads=1, stream=0x77)


class Gpu:
    kind = "cuda"


class FakeBinding:
    def __init__(self) -> None:
        self.bound: list[tuple[Any, ...]] = []

    def bind_input(self, *arguments: Any) -> None:
        self.bound.append(arguments)

    bind_output = bind_input


class FakeSession:
    """A session of the CUDA provider, as far as binding asks."""

    def __init__(self, error: str = "") -> None:
        self.binding, self.error, self.options = FakeBinding(), error, list[Any]()

    def get_inputs(self) -> list[Any]:
        return []

    def get_outputs(self) -> list[Any]:
        return [type("Tensor", (), {"name": "out", "type": "tensor(float)", "shape": ["n", 3]})]

    def io_binding(self) -> FakeBinding:
        return self.binding

    def run_with_iobinding(self, binding: FakeBinding, options: Any) -> None:
        assert binding is self.binding
        self.options.append(options)
        if self.error:
            raise RuntimeError(self.error)


@pytest.fixture
def on_gpu(backend: OnnxRuntimeBackend) -> OnnxRuntimeBackend:
    """As after opening with ``cuda,device_id=1`` and a stream of ours."""
    backend.device_kind, backend._stream = "cuda", 0x77
    backend._provider = Provider("CUDAExecutionProvider", {"device_id": "1"})
    return backend


def test_on_a_gpu_addresses_go_with_its_number_and_the_stream_is_ours(
    on_gpu: OnnxRuntimeBackend, host: HostDevice
) -> None:
    session = FakeSession()
    on_gpu._sessions["fake"] = session
    out = host.buffer("out", (2, 3), np.dtype(np.float32))
    work = on_gpu.bind("fake", Gpu(), {"out": out})  # type: ignore[arg-type]
    assert session.binding.bound == [("out", "cuda", 1, np.float32, (2, 3), out.pointer)]
    assert not work.capturable
    stream = host.stream("compute")
    with pytest.raises(DeviceError, match="not to its provider's stream"):
        work.run(stream)
    stream.handle = 0x77
    work.run(stream)
    (options,) = session.options
    assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"


@pytest.mark.parametrize("error", ["std::bad_alloc", "CUDA failure 2: out of memory", "Failed to allocate memory"])
def test_what_its_allocators_say_is_an_error_of_memory(
    error: str, on_gpu: OnnxRuntimeBackend, host: HostDevice
) -> None:
    on_gpu._sessions["fake"], stream = FakeSession(error), host.stream("compute")
    stream.handle = 0x77
    out = host.buffer("out", (2, 3), np.dtype(np.float32))
    with pytest.raises(DeviceMemoryError, match="no memory left in the graph 'fake'"):
        on_gpu.bind("fake", Gpu(), {"out": out}).run(stream)  # type: ignore[arg-type]

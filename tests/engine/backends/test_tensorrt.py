"""The backends ``tensorrt`` and ``tensorrt-rtx`` on a rehearsed GPU; their plans compute what the fake backend does."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from msdm_engine import Bundle, Engine, PairRequest
from msdm_engine.backends import BACKENDS, open_backend
from msdm_engine.backends import tensorrt as backend_module
from msdm_engine.backends.runtime_cache import cache_file, cache_folder
from msdm_engine.backends.tensorrt import TensorRTBackend
from msdm_engine.bundle.graph_shapes import dimensions_of, shapes_of
from msdm_engine.bundle.plan_spec import PlanSpec
from msdm_engine.contract import CONDITIONER, DENOISER, TEXT_ENCODER
from msdm_engine.devices.contract import Buffer
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.host import HostDevice
from msdm_engine.errors import BackendError, BundleError, DeviceError, OutputError, RequestError
from msdm_engine.rehearsal.cuda import RehearsedCuda
from msdm_engine.rehearsal.tensorrt import RehearsedTensorRT, Specialisation, plan_bytes

VERSIONS = {"tensorrt": "11.4.0.106", "tensorrt-rtx": "1.7.1.116"}
#: 64 px, batch 2, stride 16; a run with and without guidance.
ROOM = {"rows": 4, "columns": 4}
SHAPES = {
    TEXT_ENCODER: [{"samples": 1}],
    CONDITIONER: [{"samples": 2, **ROOM}, {"samples": 4, **ROOM}],
    DENOISER: [{"batch": 2, "branches": 1, **ROOM}, {"batch": 2, "branches": 2, **ROOM}],
}


@pytest.fixture
def planned(bundle_folder: Path) -> Callable[..., Path]:
    """Adds plans of every graph and shape to the bundle; ``changes`` are of their entries."""

    def add(backend: str = "tensorrt-rtx", written_by: str = "", **changes: Any) -> Path:
        manifest, plans = Bundle.open(bundle_folder).manifest, {}
        (bundle_folder / "plans").mkdir(exist_ok=True)
        for graph, shapes in SHAPES.items():
            spec, source = manifest.graphs[graph], manifest.files[f"{graph}.onnx"].sha256
            for number, dimensions in enumerate(shapes):
                name, data = f"{graph}-{number}", plan_bytes(graph, spec, written_by or VERSIONS[backend])
                (bundle_folder / f"plans/{name}.plan").write_bytes(data)
                plans[name] = PlanSpec(
                    f"plans/{name}.plan", len(data), hashlib.sha256(data).hexdigest(), graph, source, source, backend,
                    VERSIONS[backend], "sm_89", "float32", {key: (value,) * 3 for key, value in dimensions.items()},
                )  # fmt: skip
        raw = {name: asdict(plan) | changes for name, plan in plans.items()}
        file = bundle_folder / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"plans": raw}))
        return bundle_folder

    return add


class Machine:
    """A rehearsed GPU, a TensorRT on it, and the backends that were opened."""

    def __init__(self, fake: Any, cache: Path) -> None:
        self.cuda, self.fake, self.cache = RehearsedCuda(), fake, cache
        self.device = CudaDevice(runtime=self.cuda)
        self.opened: list[TensorRTBackend] = []

    def open(self, folder: Path, name: str = "tensorrt-rtx", **options: Any) -> TensorRTBackend:
        self.trt = RehearsedTensorRT(self.cuda, self.fake.run, rtx=name == "tensorrt-rtx", **options)
        backend = TensorRTBackend(Bundle.open(folder), name, trt=self.trt, device=self.device, cache=self.cache)
        self.opened.append(backend)
        return backend

    def buffers(self, folder: Path, graph: str, dimensions: dict[str, int], prefix: str = "") -> dict[str, Buffer]:
        spec = Bundle.open(folder).manifest.graphs[graph]
        tensors = (*spec.inputs, *spec.outputs)
        shapes = shapes_of(graph, tensors, dimensions)
        return {t.name: self.device.buffer(prefix + t.name, shapes[t.name], np.dtype(t.dtype)) for t in tensors}


@pytest.fixture
def machine(fake_backend: Any, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(fake_backend, tmp_path / "cache")
    yield made
    for backend in made.opened:
        backend.close()
    made.device.close()
    assert made.cuda.left == 0


@pytest.mark.parametrize("name", list(VERSIONS))
def test_pairs_are_those_of_the_backend_that_the_plans_compute(
    name: str, machine: Machine, planned: Callable[..., Path], fake_backend: Any
) -> None:
    folder = planned(name)
    instances = np.zeros((64, 64), np.uint16)
    instances[10:30, 12:40] = 1
    wanted = [PairRequest(i, 5, 64, 64, instances) for i in range(3)]
    with Engine(Bundle.open(folder), fake_backend) as engine:
        expected = list(engine.sample(wanted))
    with Engine(Bundle.open(folder), machine.open(folder, name)) as engine:
        for found, wished in zip(engine.sample(wanted), expected, strict=True):
            assert np.array_equal(found.image, wished.image)
    loads = [line for line in machine.trt.log if line.startswith("load")]
    assert sorted(loads) == [f"load {graph}" for graph in sorted((TEXT_ENCODER, CONDITIONER, DENOISER))]  # each once
    assert machine.cuda.named("cudaGraphLaunch")  # the engine's pipeline captured and replayed them
    assert engine.backend.identity == {
        "backend": name,
        "version": VERSIONS[name],
        "precision": "float32",
        "device_name": "Rehearsed GPU",
        "device_capability": "sm_89",
        "device_driver": "13.5",
    }


def test_work_is_captured_after_one_enqueue_and_replayed_with_one_launch(
    machine: Machine, planned: Callable[..., Path]
) -> None:
    folder = planned()
    backend = machine.open(folder)
    buffers = machine.buffers(folder, DENOISER, SHAPES[DENOISER][0])
    work = backend.bind(DENOISER, machine.device, buffers)
    assert work.capturable
    assert not backend.not_capturable
    assert machine.trt.log == ["load denoiser", "compile denoiser", "enqueue denoiser", "enqueue denoiser"]
    assert machine.trt.specialisations == [Specialisation.EAGER]
    assert {b.name for b in work.writes} == {"state_next", "denoised", "activations of steps"}
    host = machine.device.buffer("host", buffers["denoised"].shape, np.dtype(np.float32), "host")
    stream = machine.device.stream("steps")
    with stream.capture("step") as graph:
        stream.submit(work)
    since = len(machine.cuda.calls)
    stream.replay(graph())
    assert [call.name for call in machine.cuda.calls[since:]] == ["cudaGraphLaunch"]
    stream.copy(host, buffers["denoised"])
    stream.synchronize()
    # State zero, no condition present, guidance zero: D = sum of no weight = 0 exactly, and finite.
    assert not host.array().any()
    graph().free()


def test_outputs_are_zero_after_bind(machine: Machine, planned: Callable[..., Path], fake_backend: Any) -> None:
    fake_backend.poison = {
        (DENOISER, number): 0 for number in (1, 2)
    }  # the warm-up's result is not finite, as a network's may be for zeros
    folder = planned()
    buffers = machine.buffers(folder, DENOISER, SHAPES[DENOISER][0])
    machine.open(folder).bind(DENOISER, machine.device, buffers)
    host = machine.device.buffer("host", buffers["denoised"].shape, np.dtype(np.float32), "host")
    stream = machine.device.stream("read")
    stream.copy(host, buffers["denoised"])
    stream.synchronize()
    assert not host.array().any()


def test_a_stage_shares_memory_that_never_moves_and_stages_do_not(
    machine: Machine, planned: Callable[..., Path]
) -> None:
    folder = planned()
    backend = machine.open(folder)
    for graph in (TEXT_ENCODER, CONDITIONER, DENOISER):
        for number, dimensions in enumerate(SHAPES[graph]):
            backend.bind(graph, machine.device, machine.buffers(folder, graph, dimensions, f"{graph}-{number}."))
    blocks = [(graph, pointer, size) for graph, pointer, size in machine.trt.activation]
    (text, conditions, larger), (steps, guided) = blocks[:3], blocks[3:]
    assert (text[2], conditions[2], larger[2]) == (1024, 2048, 4096)  # each needs more than the one before
    assert len({text[1], conditions[1], larger[1]}) == 3  # and none has moved
    assert steps == guided  # both of batch 2: one block for the denoiser's segments
    assert steps[1] not in {text[1], conditions[1], larger[1]}
    backend.run(TEXT_ENCODER, {"token_ids": np.zeros((1, 8), np.int64), "token_mask": np.zeros((1, 8), np.float32)})
    assert machine.trt.activation[-1][1] not in {pointer for _, pointer, _ in blocks}  # it is not the pipeline's


def test_a_stage_on_two_streams_is_refused(machine: Machine, planned: Callable[..., Path]) -> None:
    folder = planned()
    backend = machine.open(folder)
    text = backend.bind(TEXT_ENCODER, machine.device, machine.buffers(folder, TEXT_ENCODER, {"samples": 1}))
    shapes = SHAPES[CONDITIONER][0]
    conditioner = backend.bind(CONDITIONER, machine.device, machine.buffers(folder, CONDITIONER, shapes))
    one, two = machine.device.stream("one"), machine.device.stream("two")
    one.submit(text)
    one.submit(conditioner)
    with pytest.raises(DeviceError, match="stage 'conditions' is submitted to the stream 'two'"):
        two.submit(conditioner)


@pytest.mark.parametrize(
    ("name", "said"), [("tensorrt-rtx", "is_stream_capturable says no"), ("tensorrt", "did not run")]
)
def test_a_plan_that_cannot_be_captured_says_so_and_still_runs(
    name: str, said: str, machine: Machine, planned: Callable[..., Path]
) -> None:
    folder = planned(name)
    backend = machine.open(folder, name, capturable=False)
    work = backend.bind(DENOISER, machine.device, machine.buffers(folder, DENOISER, SHAPES[DENOISER][0]))
    assert not work.capturable
    assert said in backend.not_capturable["denoiser-0"]
    stream = machine.device.stream("steps")
    with pytest.raises(DeviceError, match="'denoiser' cannot be captured"), stream.capture("step"):
        stream.submit(work)
    stream.submit(work)
    stream.synchronize()
    for pointer in [call for call in machine.cuda.memory if machine.cuda.memory[call]._length_ == 16]:
        machine.cuda.memory.pop(pointer)  # what the rehearsed plan allocated


def test_compiled_kernels_are_kept_for_each_plan_device_and_version(
    machine: Machine, planned: Callable[..., Path]
) -> None:
    folder = planned()

    def bind() -> list[str]:
        machine.open(folder).bind(DENOISER, machine.device, machine.buffers(folder, DENOISER, SHAPES[DENOISER][0]))
        return [line for line in machine.trt.log if line.startswith("compile")]

    assert bind() == ["compile denoiser"]
    plan = Bundle.open(folder).manifest.plans["denoiser-0"]
    kept = cache_file(machine.cache, plan, machine.device.identity)
    assert kept.parent.name == "rehearsed-gpu-sm_89-cuda-13.5"
    assert kept.read_text() == "1.7.1.116 denoiser"
    assert [file.name for file in kept.parent.iterdir()] == [kept.name]  # no temporary file
    assert bind() == []  # as in the next process
    kept.write_text("1.6.0.1 denoiser")
    assert bind() == ["compile denoiser"]  # refused by the runtime, and replaced
    assert kept.read_text() == "1.7.1.116 denoiser"
    driver = cache_file(machine.cache, plan, machine.device.identity | {"driver": "14.0"})
    assert driver != kept
    kept.unlink()
    kept.mkdir()
    with pytest.raises(OutputError, match="cache of compiled kernels") as caught:
        bind()
    assert "MSDM_CACHE" in str(caught.value.hint)
    kept.rmdir()
    kept.parent.chmod(0o500)
    try:
        if not _is_root():
            with pytest.raises(OutputError, match="cache of compiled kernels"):
                bind()
    finally:
        kept.parent.chmod(0o700)


def _is_root() -> bool:
    import os

    return hasattr(os, "geteuid") and os.geteuid() == 0


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSDM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MSDM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "msdm"


REFUSALS = {
    "load": "cannot load the plan 'denoiser-0'",
    "create_execution_context": "did not make an execution context",
    "set_input_shape": "did not take 'state' of the shape",
    "set_tensor_address": "did not take the address of 'state'",
    "execute_async_v3": "did not run with the plan",
}


@pytest.mark.parametrize("refused", list(REFUSALS))
def test_what_tensorrt_refuses_is_an_error(refused: str, machine: Machine, planned: Callable[..., Path]) -> None:
    folder = planned()
    backend = machine.open(folder)
    machine.trt.refuses.add(refused)
    with pytest.raises(BackendError, match=REFUSALS[refused]) as caught:
        backend.bind(DENOISER, machine.device, machine.buffers(folder, DENOISER, SHAPES[DENOISER][0]))
    if refused == "load":
        assert "(invalid, diagnostics 16)" in caught.value.what
        assert "its log ends: [3] Rebuild the engine" in str(caught.value.note)


def test_a_plan_that_does_not_fit_is_refused_with_the_command(machine: Machine, planned: Callable[..., Path]) -> None:
    folder = planned()
    backend = machine.open(folder)
    with pytest.raises(BackendError, match=r"no plan of 'denoiser' .* is for batch 7") as caught:
        backend.bind(DENOISER, machine.device, machine.buffers(folder, DENOISER, SHAPES[DENOISER][0] | {"batch": 7}))
    assert "msdm-export build" in str(caught.value.hint)
    (folder / "plans/denoiser-0.plan").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"denoiser-0\.plan has 7 bytes"):
        backend.bind(DENOISER, machine.device, machine.buffers(folder, DENOISER, SHAPES[DENOISER][0]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {"stripped": True}}, "without its weights"),
        ({"options": {"capture": {"specialisation": "lazy"}}}, "asks for the kernel specialisation 'lazy'"),
    ],
)
def test_a_plan_that_was_built_for_something_else_is_refused(
    changes: dict[str, Any], said: str, machine: Machine, planned: Callable[..., Path]
) -> None:
    folder = planned(**changes)
    with pytest.raises(BackendError, match=said):
        machine.open(folder).bind(DENOISER, machine.device, machine.buffers(folder, DENOISER, SHAPES[DENOISER][0]))


def test_a_plan_with_other_tensors_is_refused(machine: Machine, planned: Callable[..., Path]) -> None:
    folder = planned()
    backend = machine.open(folder)
    spec = backend._graphs[DENOISER]
    backend._graphs[DENOISER] = replace(spec, outputs=(replace(spec.outputs[0], dtype="float16"), spec.outputs[1]))
    buffers = machine.buffers(folder, DENOISER, SHAPES[DENOISER][0])
    buffers["state_next"] = machine.device.buffer("half", buffers["state"].shape, np.dtype(np.float16))
    with pytest.raises(BackendError, match="other tensors than the manifest lists") as caught:
        backend.bind(DENOISER, machine.device, buffers)
    assert caught.value.note == "state_next float16, state_next float32"


def test_buffers_that_are_no_tensors_of_the_graph_are_refused(machine: Machine, planned: Callable[..., Path]) -> None:
    folder = planned()
    backend, device = machine.open(folder), machine.device
    good = machine.buffers(folder, DENOISER, SHAPES[DENOISER][0])
    f32 = np.dtype(np.float32)
    cases: list[tuple[dict[str, Buffer | None], str]] = [
        ({"row": None}, "'row' of the graph 'denoiser' is missing"),
        ({"row": device.buffer("row", (5,), np.dtype(np.float64))}, "is float64, not float32"),
        ({"row": device.buffer("row", (5,), f32, "host")}, "lies on the host"),
        ({"denoised": device.buffer("d", (2, 6, 64, 32), f32)}, r"'denoised' has the shape \[2, 6, 64, 32\]"),
    ]
    for changes, said in cases:
        buffers = {name: buffer for name, buffer in {**good, **changes}.items() if buffer is not None}
        with pytest.raises(DeviceError, match=said):
            backend.bind(DENOISER, device, buffers)
    for name, shape in (("row", (6,)), ("noise", (3, 6, 64, 64))):
        with pytest.raises(RequestError, match=f"'{name}' of the graph 'denoiser' has the shape"):
            backend.bind(DENOISER, device, {**good, name: device.buffer(name, shape, f32)})
    with HostDevice() as host, pytest.raises(DeviceError, match="a device of the kind 'host'"):
        backend.bind(DENOISER, host, good)


def test_run_refuses_what_the_graph_does_not_take(machine: Machine, planned: Callable[..., Path]) -> None:
    backend = machine.open(planned())
    tokens: dict[str, np.ndarray] = {
        "token_ids": np.zeros((1, 8), np.int64),
        "token_mask": np.zeros((1, 8), np.float32),
    }
    with pytest.raises(DeviceError, match="'token_ids' of the graph 'text_encoder' is int32"):
        backend.run(TEXT_ENCODER, tokens | {"token_ids": np.zeros((1, 8), np.int32)})
    with pytest.raises(RequestError, match="'token_mask' of the graph 'text_encoder' is not given"):
        backend.run(TEXT_ENCODER, {"token_ids": tokens["token_ids"]})
    with pytest.raises(BackendError, match="graph 'critic' is not open"):
        backend.run("critic", {})
    left = machine.cuda.left
    with pytest.raises(BackendError, match="is for samples 2"):
        backend.run(TEXT_ENCODER, {name: np.repeat(value, 2, 0) for name, value in tokens.items()})
    machine.device.synchronize()
    machine.cuda.drain(machine.device._pool._stream)
    assert machine.cuda.left == left  # what the failed binding made is freed
    backend.close()
    with pytest.raises(BackendError, match="is closed"):
        backend.run(TEXT_ENCODER, tokens)


def test_a_shape_that_is_not_a_multiple_is_refused() -> None:
    spec = SimpleNamespace(name="state", dtype="float32", shape=("batch", "16*rows"))
    assert dimensions_of("g", [spec], {"state": (2, 48)}) == {"batch": 2, "rows": 3}  # type: ignore[list-item]
    for shape in ((2, 40), (2, 8), (0, 16)):
        with pytest.raises(RequestError, match="has the shape"):
            dimensions_of("g", [spec], {"state": shape})  # type: ignore[list-item]


def test_backends_are_opened_by_name_or_say_what_is_missing(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(bundle_folder)
    assert {"onnxruntime", "tensorrt", "tensorrt-rtx"} <= set(BACKENDS)
    with pytest.raises(RequestError, match="did you mean 'tensorrt'"):
        open_backend("tensort", bundle)
    with pytest.raises(RequestError, match="no execution providers") as caught:
        open_backend("tensorrt:cuda", bundle)
    with pytest.raises(RequestError, match="2 threads for the backend 'tensorrt'"):
        open_backend("tensorrt", bundle, threads=2)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match="TensorRT cannot be imported") as missing:
        open_backend("tensorrt", bundle)
    assert "msdm[tensorrt]" in str(missing.value.hint)
    assert "doctor" in str(missing.value.hint)
    assert caught.value.exit_code == 2


def test_the_order_of_closing(machine: Machine, planned: Callable[..., Path]) -> None:
    folder = planned()
    backend = machine.open(folder)
    work = backend.bind(DENOISER, machine.device, machine.buffers(folder, DENOISER, SHAPES[DENOISER][0]))
    stream = machine.device.stream("steps")
    with stream.capture("step") as graph:
        stream.submit(work)
    with pytest.raises(DeviceError, match="'activations of steps' is freed while the graph 'step' holds its address"):
        backend.close()
    graph().free()
    later = machine.open(folder)
    later.bind(DENOISER, machine.device, machine.buffers(folder, DENOISER, SHAPES[DENOISER][0]))
    machine.device.close()
    later.close()  # its memory went with the device


def test_a_backend_owns_the_device_that_it_opened(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, fake_backend: Any
) -> None:
    cuda = RehearsedCuda()
    monkeypatch.setattr(backend_module, "CudaDevice", lambda: CudaDevice(runtime=cuda))
    trt = RehearsedTensorRT(cuda, fake_backend.run)
    backend = TensorRTBackend(Bundle.open(bundle_folder), "tensorrt-rtx", trt=trt)
    backend.close()
    backend.close()
    assert cuda.left == 0
    monkeypatch.setattr(backend_module, "StagedRuns", lambda *_: (_ for _ in ()).throw(DeviceError("no memory")))
    with pytest.raises(DeviceError, match="no memory"):
        TensorRTBackend(Bundle.open(bundle_folder), "tensorrt-rtx", trt=trt)
    assert cuda.left == 0  # a failed open holds nothing


def test_the_real_tensorrt_has_what_is_called(planned: Callable[..., Path], machine: Machine) -> None:
    """Without a GPU it loads no plan; that it says so, and that every name exists, can be tried."""
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install 'msdm[rtx]'")
    for owner, names in {
        trt.ICudaEngine: ("create_runtime_config", "create_execution_context", "get_tensor_name", "get_tensor_dtype"),
        trt.IRuntimeConfig: ("set_execution_context_allocation_strategy", "create_runtime_cache", "set_runtime_cache"),
        trt.IRuntimeCache: ("serialize", "deserialize"),
        trt.IExecutionContext: (
            *("set_input_shape", "update_device_memory_size_for_shapes", "set_device_memory", "set_tensor_address"),
            *("get_tensor_shape", "execute_async_v3", "is_stream_capturable"),
        ),
        trt.ExecutionContextAllocationStrategy: ("USER_MANAGED",),
        trt.DynamicShapesKernelSpecializationStrategy: ("EAGER", "NONE"),
    }.items():
        assert [name for name in names if not hasattr(owner, name)] == []
    assert np.dtype(trt.nptype(trt.float16)) == np.float16
    if int(pytest.importorskip("cuda.bindings.runtime").cudaGetDeviceCount()[0]) == 0:
        pytest.skip("this machine has a GPU")
    folder = planned("tensorrt-rtx")
    backend = TensorRTBackend(Bundle.open(folder), "tensorrt-rtx", trt=trt, device=machine.device, cache=machine.cache)
    machine.opened.append(backend)
    backend.identity["version"] = VERSIONS["tensorrt-rtx"]
    with pytest.raises(BackendError, match=r"cannot load the plan 'denoiser-0' \(invalid") as caught:
        backend.bind(DENOISER, machine.device, machine.buffers(folder, DENOISER, SHAPES[DENOISER][0]))
    assert "its log ends: [ERROR]" in str(caught.value.note)

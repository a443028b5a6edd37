"""Execution providers on a recorded ONNX Runtime: what is asked for is used, or it is an error."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from msdm_engine import Bundle
from msdm_engine.backends import onnxruntime as backend_module
from msdm_engine.backends import open_backend, providers
from msdm_engine.backends.providers import CPU, PROVIDERS, parse_provider
from msdm_engine.errors import BackendError, BundleError, RequestError

CUDA, RTX = PROVIDERS["cuda"], PROVIDERS["nv-tensorrt-rtx"]


class FakeRuntime(ModuleType):
    """An ONNX Runtime that has some providers, of which some do not start; records the sessions asked for."""

    __version__ = "1.32.0"

    def __init__(self, available: tuple[str, ...], broken: tuple[str, ...] = ()) -> None:
        super().__init__("onnxruntime")
        self.available, self.broken = available, broken
        self.asked: list[dict[str, Any]] = []
        self.devices: list[Any] = []
        self.specs: Any = None

    def get_available_providers(self) -> list[str]:
        return list(self.available)

    def get_ep_devices(self) -> list[Any]:
        return self.devices

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if path == "broken":
            raise RuntimeError("libcuda.so.1: cannot open shared object file")
        self.devices = [SimpleNamespace(ep_name=name)] * (path == "there")

    def SessionOptions(self) -> Any:
        options = SimpleNamespace(devices=None)
        options.add_provider_for_devices = lambda devices, given: setattr(options, "devices", (devices, given))
        return options

    def InferenceSession(self, graph: bytes, options: Any, **given: Any) -> Any:
        self.asked.append(given | {"devices": options.devices})
        names = [entry[0] if isinstance(entry, tuple) else entry for entry in given.get("providers", [])]
        if options.devices:
            names = [options.devices[0][0].ep_name, CPU]
        spec = next(self.specs)
        return SimpleNamespace(
            get_providers=lambda: [name for name in names if name not in self.broken],
            get_inputs=lambda: spec.inputs,
            get_outputs=lambda: spec.outputs,
        )


def opened(name: str, folder: Path, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, **manifest: Any) -> Any:
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setattr(backend_module, "check_is_whole", lambda *_: None)  # these graphs are no ONNX
    bundle = Bundle.open(folder)
    runtime.specs = iter(bundle.manifest.graphs.values())
    for key, value in manifest.items():
        object.__setattr__(bundle.manifest, key, value)
    return open_backend(name, bundle, threads=1)


def test_the_default_is_the_cpu_alone(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime((CUDA, CPU))
    backend = opened("onnxruntime", bundle_folder, runtime, monkeypatch)
    assert [asked["providers"] for asked in runtime.asked] == [[CPU]] * 3
    assert backend.identity["provider"] == CPU
    assert "provider_options" not in backend.identity


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "openvino", "QNNExecutionProvider"])
def test_a_provider_that_is_there_is_used_and_recorded(
    name: str, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = PROVIDERS.get(name, name)
    runtime = FakeRuntime((full, CPU))
    backend = opened(f"onnxruntime:{name},b=2,a=cache", bundle_folder, runtime, monkeypatch)
    assert [asked["providers"] for asked in runtime.asked] == [[(full, {"a": "cache", "b": "2"}), CPU]] * 3
    assert all(asked["enable_fallback"] == 0 for asked in runtime.asked)
    assert backend.identity["provider"] == full
    assert backend.identity["provider_options"] == "a=cache,b=2"


def test_options_of_the_manifest_come_first_and_those_of_the_name_over_them(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = {CUDA: {"cudnn_conv_algo_search": "HEURISTIC", "device_id": "0"}}
    backend = opened(
        "onnxruntime:cuda,device_id=1", bundle_folder, FakeRuntime((CUDA, CPU)), monkeypatch, providers=defaults
    )
    assert backend.identity["provider_options"] == "cudnn_conv_algo_search=HEURISTIC,device_id=1"


def test_an_absent_provider_is_an_error_with_what_is_there(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendError, match="has no CUDAExecutionProvider") as caught:
        opened("onnxruntime:cuda", bundle_folder, FakeRuntime((CPU,)), monkeypatch)
    assert "it has CPUExecutionProvider" in str(caught.value)
    assert "msdm[gpu]" in str(caught.value)


def test_a_provider_that_does_not_start_is_not_replaced(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="did not start CUDAExecutionProvider for the graph") as caught:
        opened("onnxruntime:cuda", bundle_folder, FakeRuntime((CUDA, CPU), broken=(CUDA,)), monkeypatch)
    assert "it would run on CPUExecutionProvider" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "said"), [("broken", "cannot be loaded: libcuda"), ("nowhere", "found no GPU"), (None, "not installed")]
)
def test_a_plugin_that_is_absent_or_finds_no_gpu(
    path: str | None, said: str, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = path and SimpleNamespace(get_ep_name=lambda: RTX, get_library_path=lambda: path)
    monkeypatch.setitem(sys.modules, providers.PLUGINS[RTX], plugin)
    with pytest.raises(BackendError, match=said):
        opened("onnxruntime:nv-tensorrt-rtx", bundle_folder, FakeRuntime((CPU,)), monkeypatch)


def test_a_plugin_of_another_name_is_refused(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = SimpleNamespace(get_ep_name=lambda: "Other", get_library_path=lambda: "there")
    monkeypatch.setitem(sys.modules, providers.PLUGINS[RTX], plugin)
    with pytest.raises(BackendError, match="registers 'Other'"):
        opened("onnxruntime:nv-tensorrt-rtx", bundle_folder, FakeRuntime((CPU,)), monkeypatch)


def test_a_plugin_runs_on_its_own_devices(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = SimpleNamespace(get_ep_name=lambda: RTX, get_library_path=lambda: "there")
    monkeypatch.setitem(sys.modules, providers.PLUGINS[RTX], plugin)
    runtime = FakeRuntime((CPU,))
    name = "onnxruntime:nv-tensorrt-rtx,nv_runtime_cache_path=cache"
    backend = opened(name, bundle_folder, runtime, monkeypatch)
    devices, options = runtime.asked[0]["devices"]
    assert [device.ep_name for device in devices] == [RTX]
    assert options == {"nv_runtime_cache_path": "cache"}
    assert "providers" not in runtime.asked[0]
    assert backend.identity["provider"] == RTX


@pytest.mark.parametrize(
    ("name", "said"),
    [("onnxruntime:", "unknown backend"), ("onnx:cuda", "unknown backend"), ("onnxruntime:cudo", "provider 'cudo'"),
     ("onnxruntime:cuda,device", "option 'device'"), ("onnxruntime:cuda,=1", "option '=1'")],
)  # fmt: skip
def test_a_name_that_is_not_of_the_form(
    name: str, said: str, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RequestError, match=said):
        opened(name, bundle_folder, FakeRuntime((CPU,)), monkeypatch)
    assert parse_provider("").name == CPU


@pytest.mark.parametrize(
    "option",
    [
        {"trt_engine_cache_path": "x"},
        {"ModelCacheDirectory": "x"},  # CoreML's spelling
        {"gpu_external_alloc": "4096"},  # the address of a function
        {"load_config": "x.json"},
        {"trt_dump_subgraphs": "1"},
        {"anything": "/etc"},
        {"anything": "a\\b"},
    ],
)
def test_a_bundle_names_no_place_on_its_users_machine(option: dict[str, str], edit_manifest: Any) -> None:
    folder = edit_manifest(lambda raw: raw.update(providers={CUDA: option}))
    with pytest.raises(BundleError, match="names a place"):
        Bundle.open(folder)

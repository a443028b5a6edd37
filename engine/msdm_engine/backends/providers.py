"""ONNX Runtime's execution providers: which one is asked for, with which options, and whether it is really there.

A backend is named ``onnxruntime``, ``onnxruntime:PROVIDER`` or ``onnxruntime:PROVIDER,OPTION=VALUE,...``, as in
``onnxruntime:tensorrt,trt_engine_cache_enable=1,trt_engine_cache_path=cache``. Options that the manifest gives for the
provider come first; those of the name are set over them. What was used is part of the backend's identity.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

from msdm_engine.errors import BackendError, RequestError

CPU = "CPUExecutionProvider"
#: Short names; any other name is taken as ONNX Runtime spells it, such as ``CoreMLExecutionProvider``.
PROVIDERS = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "nv-tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
#: Providers that come as a plugin of their own -> the module that knows where it lies.
PLUGINS = {"NvTensorRTRTXExecutionProvider": "onnxruntime_ep_nv_tensorrt_rtx"}
INSTALL = {
    "CUDAExecutionProvider": "an environment of its own with 'msdm[gpu]'",
    "TensorrtExecutionProvider": "an environment of its own with 'msdm[gpu]', and TensorRT",
    "NvTensorRTRTXExecutionProvider": "pip install onnxruntime-ep-nv-tensorrt-rtx beside 'msdm[cpu]'; needs a driver",
    "OpenVINOExecutionProvider": "an environment of its own with onnxruntime-openvino",
}


@dataclass(frozen=True)
class Provider:
    """An execution provider by ONNX Runtime's name, and its options as strings."""

    name: str = CPU
    options: dict[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """Options as in the backend's name, in alphabetical order."""
        return ",".join(f"{key}={value}" for key, value in sorted(self.options.items()))


def parse_provider(words: str, defaults: dict[str, dict[str, str]] | None = None) -> Provider:
    """What stands behind the colon of a backend's name.

    Args:
        words: "" for the CPU.
        defaults: of the manifest, by the provider's name.

    Raises:
        RequestError: not of the form.
    """
    short, *pairs = words.split(",") if words else ["cpu"]
    name = PROVIDERS.get(short, short)
    if short not in PROVIDERS and not short.endswith("ExecutionProvider"):
        legal = ", ".join(PROVIDERS)
        raise RequestError(f"unknown execution provider '{short}'", note=f"{legal}, or ONNX Runtime's own name of one")
    options = dict((defaults or {}).get(name, {}))
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise RequestError(f"option '{pair}' of the provider '{short}'", note="OPTION=VALUE, separated by commas")
        options[key] = value
    return Provider(name, options)


def choose(onnxruntime: Any, session_options: Any, provider: Provider) -> dict[str, Any]:
    """Arguments of ``InferenceSession`` that select the provider, and nothing beside it but the CPU.

    The CPU stays behind every provider, for the few nodes of shapes that a GPU has no use for; ONNX Runtime demands it.

    Raises:
        BackendError: ONNX Runtime does not have the provider, or its plugin cannot be loaded.
    """
    if provider.name in PLUGINS:
        devices = _plugin_devices(onnxruntime, provider.name)
        session_options.add_provider_for_devices(devices, provider.options)
        return {}
    available = onnxruntime.get_available_providers()
    if provider.name not in available:
        raise BackendError(
            f"ONNX Runtime {onnxruntime.__version__} has no {provider.name}",
            note=f"it has {', '.join(available)}",
            hint=f"install it: {INSTALL.get(provider.name, 'see its documentation')}; `msdm-engine doctor` says more",
        )
    chosen: list[Any] = [(provider.name, provider.options)] if provider.options else [provider.name]
    return {"providers": chosen if provider.name == CPU else [*chosen, CPU]}


def check_is_used(session: Any, provider: Provider, graph: str) -> None:
    """ONNX Runtime drops a provider that fails to start and goes on with the CPU; here that is an error.

    Raises:
        BackendError: the session does not have the provider.
    """
    found = list(session.get_providers())
    if found[:1] != [provider.name]:
        raise BackendError(
            f"ONNX Runtime did not start {provider.name} for the graph '{graph}'",
            note=f"it would run on {', '.join(found)}",
            hint="`msdm-engine doctor` says what does not fit: driver, CUDA, cuDNN or TensorRT",
        )


def _plugin_devices(onnxruntime: Any, name: str) -> list[Any]:
    """Devices of a provider that is a plugin; registered once in a process."""
    hint = f"install it: {INSTALL[name]}"
    try:
        plugin = importlib.import_module(PLUGINS[name])
    except ImportError as error:
        raise BackendError(f"the plugin of {name} is not installed", hint=hint) from error
    registered = plugin.get_ep_name()
    if registered != name:  # its sessions would then be taken for sessions without it
        raise BackendError(f"the plugin of {name} registers '{registered}'", note="another version of it", hint=hint)
    if not any(device.ep_name == registered for device in onnxruntime.get_ep_devices()):
        try:
            onnxruntime.register_execution_provider_library(registered, plugin.get_library_path())
        except Exception as error:  # ONNX Runtime raises its own classes, derived from Exception only
            raise BackendError(f"the plugin of {name} cannot be loaded: {error}", hint=hint) from error
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == registered]
    if not devices:
        raise BackendError(
            f"{name} found no GPU that it runs on", note="it needs compute capability 8.6, 8.9 or 12.0 and later"
        )
    return devices

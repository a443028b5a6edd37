"""Findings about a machine, each with how to mend it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from msdm_engine.bundle.plan_spec import DATA_CENTRE_TARGETS, PLAN_BACKENDS
from msdm_engine.doctor.probe import Probe

#: Distributions by what they are for; the first name of a group that is installed is the one that counts.
ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
CUDA_PYTHON = ("cuda-bindings", "cuda-core", "cuda-python")
TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
TENSORRT_RTX = ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12")
POLYGRAPHY = ("polygraphy",)
#: The NV TensorRT RTX provider is a plugin of the plain ONNX Runtime.
ORT_RTX_PLUGIN = ("onnxruntime-ep-nv-tensorrt-rtx", "onnxruntime-ep-nv-tensorrt-rtx-cu13")
ALL = (*ONNX_RUNTIMES, *CUDA_PYTHON, *TENSORRT, *TENSORRT_RTX, *POLYGRAPHY, *ORT_RTX_PLUGIN)

#: The oldest that msdm is tried with.
OLDEST = {"onnxruntime": (1, 19), "onnxruntime-gpu": (1, 19), "polygraphy": (0, 49), "tensorrt": (10, 0)}

Versions = dict[str, str]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        what: the part of the machine.
        state: what was found.
        trouble: whether something is wrong, and not only absent.
        mend: what to do; "" nothing.
    """

    what: str
    state: str
    trouble: bool = False
    mend: str = ""

    def __str__(self) -> str:
        line = f"{'!!' if self.trouble else '  '} {self.what:18s} {self.state}"
        return f"{line}\n{'':22s}-> {self.mend}" if self.mend else line


def installed_versions(names: Iterable[str] = ALL) -> Versions:
    """Versions of the distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def importable(module: str) -> bool:
    """Whether a module is there; it is not imported."""
    return importlib.util.find_spec(module) is not None


def findings(probe: Probe, versions: Versions, has: Callable[[str], bool] = importable) -> list[Finding]:
    """Everything worth saying, in the order driver, CUDA, runtimes.

    Args:
        probe: what the CUDA runtime says.
        versions: of the installed distributions.
        has: whether a module can be imported.
    """
    return [
        *_driver(probe),
        _cuda_python(versions),
        *_onnx_runtime(probe, versions, has),
        *_tensorrt(probe, versions),
        *_old(versions),
    ]


def _driver(probe: Probe) -> Iterator[Finding]:
    if not probe.gpus:
        mend = "nothing, to sample on the CPU or to build plans with TensorRT for RTX; else install NVIDIA's driver"
        yield Finding("NVIDIA GPU", f"none ({probe.problem or 'the CUDA runtime found none'})", mend=mend)
        return
    for gpu in probe.gpus:
        yield Finding("NVIDIA GPU", f"{gpu.name}, {gpu.target}, {gpu.memory_mib} MiB")
    older = probe.driver and probe.runtime and _numbers(probe.driver)[0] < _numbers(probe.runtime)[0]
    yield Finding(
        "CUDA",
        f"driver up to {probe.driver or 'unknown'}, runtime {probe.runtime or 'unknown'}",
        trouble=bool(older),
        mend="the driver is older than the runtime: update it, or install cuda-bindings of its version"
        if older
        else "",
    )


def _cuda_python(versions: Versions) -> Finding:
    there = [f"{name} {versions[name]}" for name in CUDA_PYTHON if name in versions]
    majors = {_numbers(versions[name])[0] for name in ("cuda-bindings", "cuda-python") if name in versions}
    if len(majors) > 1:
        mend = "pip install --force-reinstall cuda-python with cuda-bindings of the same major version"
        return Finding("cuda-python", ", ".join(there), trouble=True, mend=mend)
    return Finding("cuda-python", ", ".join(there) or "absent", mend="" if there else "pip install 'msdm[cuda]'")


def _onnx_runtime(probe: Probe, versions: Versions, has: Callable[[str], bool]) -> Iterator[Finding]:
    there = [name for name in ONNX_RUNTIMES if name in versions]
    shown = ", ".join(f"{name} {versions[name]}" for name in there)
    if len(there) > 1:
        yield Finding(
            "ONNX Runtime",
            f"{shown}: all are the module 'onnxruntime', and the last one installed has overwritten the others",
            trouble=True,
            mend=f"pip uninstall -y {' '.join(there)}, then install one: 'msdm[cpu]' or 'msdm[gpu]'",
        )
    elif there == ["onnxruntime-gpu"] and any(name in versions for name in ORT_RTX_PLUGIN):
        yield Finding(
            "ONNX Runtime",
            f"{shown}: the NV TensorRT RTX plugin runs on the plain onnxruntime",
            trouble=True,
            mend="an environment with 'msdm[cpu]' and the plugin, without onnxruntime-gpu",
        )
    elif there and not has("onnxruntime"):
        yield Finding(
            "ONNX Runtime", f"{shown} is listed, its module is gone", trouble=True,
            mend=f"pip install --force-reinstall {there[0]}",
        )  # fmt: skip
    elif there == ["onnxruntime"] and probe.gpus and not any(name in versions for name in ORT_RTX_PLUGIN):
        mend = "for this GPU: an environment of its own with 'msdm[gpu]' instead of 'msdm[cpu]'"
        yield Finding("ONNX Runtime", f"{shown} (CPU)", mend=mend)
    else:
        yield Finding(
            "ONNX Runtime", shown or "absent", mend="" if there else "pip install 'msdm[cpu]' (or 'msdm[gpu]')"
        )


def _tensorrt(probe: Probe, versions: Versions) -> Iterator[Finding]:
    needed_by = []
    index = "pip install 'msdm[tensorrt]', with NVIDIA's package index added (--extra-index-url)"
    for backend, names, mend in (
        ("tensorrt", TENSORRT, index),
        ("tensorrt-rtx", TENSORRT_RTX, "pip install 'msdm[rtx]'"),
    ):
        there = [f"{name} {versions[name]}" for name in names if name in versions]
        yield Finding(PLAN_BACKENDS[backend], ", ".join(there) or "absent", mend="" if there else mend)
        needed_by += [mend] * bool(there)
    if needed_by and "polygraphy" in versions:
        yield Finding("Polygraphy", versions["polygraphy"])
    elif needed_by:
        yield Finding("Polygraphy", "absent, and plans are built through it", trouble=True, mend=needed_by[0])
    data_centre = [gpu for gpu in probe.gpus if gpu.target in DATA_CENTRE_TARGETS]
    if data_centre and any(name in versions for name in TENSORRT_RTX) and not any(n in versions for n in TENSORRT):
        state = f"TensorRT for RTX does not run on {data_centre[0].name} ({data_centre[0].target})"
        yield Finding("TensorRT", state, trouble=True, mend=index)


def _old(versions: Versions) -> Iterator[Finding]:
    for name, oldest in OLDEST.items():
        if name in versions and _numbers(versions[name]) < oldest:
            wanted = ".".join(map(str, oldest))
            yield Finding(name, f"{versions[name]} is too old", trouble=True, mend=f"pip install '{name}>={wanted}'")


def _numbers(version: str) -> tuple[int, ...]:
    """``1.32.0+cpu`` -> (1, 32, 0)."""
    parts = []
    for part in version.split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts) or (0,)

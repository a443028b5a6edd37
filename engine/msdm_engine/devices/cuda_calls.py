"""Calls of the CUDA runtime through ``cuda.bindings.runtime``, and its error codes as errors that say what to do.

The module is handed in, so that a test records what is called. Nothing of ``cuda.core`` is used: its graph builder
crashes on an invalidated capture, and some of its calls hang where there is no driver.
"""

from __future__ import annotations

import importlib
from typing import Any

from msdm_engine.errors import BackendError, DeviceError, DeviceMemoryError

NOT_READY, OUT_OF_MEMORY, INSUFFICIENT_DRIVER, NO_DEVICE = 600, 2, 35, 100

NEW_PROCESS = "the GPU's context of this process is lost: start a new process; `compute-sanitizer` finds the place"
CAPTURE = "submit the work once before it is captured, and let it neither allocate nor synchronise"
#: Code of a CUDA error -> what to do. Codes are stable (driver_types.h); any other is given with its own words.
HINTS = {
    OUT_OF_MEMORY: "lower the batch or the size, or close what else uses this GPU (nvidia-smi lists it)",
    46: "other programs hold this GPU in exclusive mode (nvidia-smi lists them)",
    **dict.fromkeys((700, 702, 710, 714, 715, 716, 717, 718, 719), NEW_PROCESS),
    **dict.fromkeys(range(900, 909), CAPTURE),
    999: "see the kernel's log (dmesg) for an Xid; restart the driver or the machine",
}
DOCTOR = "pip install 'msdm[cuda]', and NVIDIA's driver; `msdm-engine doctor` says what is missing"


def cuda_runtime() -> Any:
    """``cuda.bindings.runtime``.

    Raises:
        BackendError: cuda-python is not installed.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise BackendError(f"cuda-python cannot be imported: {error}", hint=DOCTOR) from error


def call(runtime: Any, function: str, *arguments: Any, asked: str = "") -> Any:
    """Calls and unpacks: ``(error,)`` -> None, ``(error, value)`` -> value, more values -> a tuple of them.

    Args:
        asked: what the call was for, named in the error.

    Raises:
        DeviceMemoryError: out of memory.
        DeviceError: any other error code.
    """
    error, *values = getattr(runtime, function)(*arguments)
    if int(error) != 0:
        raise failure(runtime, function, error, asked)
    return values[0] if len(values) == 1 else tuple(values) or None


def failure(runtime: Any, function: str, error: Any, asked: str = "") -> DeviceError:
    """A CUDA error code as an error, with its name, CUDA's words for it, and what to do."""
    code = int(error)
    name, words = (_text(getattr(runtime, get)(error)) for get in ("cudaGetErrorName", "cudaGetErrorString"))
    kind = DeviceMemoryError if code == OUT_OF_MEMORY else DeviceError
    note = f"CUDA says: {words}" if words else None
    hint = HINTS.get(code, "`msdm-engine doctor` says whether driver, CUDA and packages fit")
    return kind(f"{function} failed{asked and f' for {asked}'}: {name or 'error'} ({code})", note=note, hint=hint)


def check_has_gpu(runtime: Any, index: int) -> None:
    """Asks for the number of GPUs, which never raises and never hangs, before anything else touches the driver.

    Raises:
        BackendError: no driver, none that is new enough, or no GPU of this number.
    """
    error, count = runtime.cudaGetDeviceCount()
    if int(error) != 0:
        found = failure(runtime, "cudaGetDeviceCount", error)
        raise BackendError(f"no GPU can be used: {found.what}", note=found.note, hint=DOCTOR)
    if not 0 <= index < count:
        raise BackendError(f"there is no GPU {index}", note=f"CUDA sees {count}", hint=DOCTOR)


def _text(answer: tuple[Any, Any]) -> str:
    words = answer[1]
    return words.decode() if isinstance(words, bytes) else str(words or "")

"""Asks for the GPUs in a process of its own, with a time limit: a broken driver must not take this process with it.

``cuda.core`` may hang for good where there is no driver; ``cuda.bindings.runtime`` returns an error code instead, so
only that is asked, and still at arm's length.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

TIMEOUT_S = 30.0

#: Runs alone: prints one JSON object, whatever is installed. Attribute 75 and 76 would do for the capability, but
#: the properties hold it with name and memory.
_SCRIPT = """
import json
found = {"driver": None, "runtime": None, "gpus": [], "problem": ""}
try:
    from cuda.bindings import runtime
except ImportError as error:
    found["problem"] = f"cuda-python is not installed ({error})"
else:
    error, count = runtime.cudaGetDeviceCount()
    found["runtime"] = runtime.cudaRuntimeGetVersion()[1]
    found["driver"] = runtime.cudaDriverGetVersion()[1]
    if int(error) != 0:
        found["problem"] = str(runtime.cudaGetErrorString(error)[1].decode())
    for i in range(count or 0):
        error, gpu = runtime.cudaGetDeviceProperties(i)
        if int(error) == 0:
            name = gpu.name.decode().rstrip(chr(0))
            found["gpus"].append([name, gpu.major, gpu.minor, gpu.totalGlobalMem])
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Gpu:
    """A CUDA device: name, compute capability as in ``sm_89``, memory in MiB."""

    name: str
    target: str
    memory_mib: int


@dataclass(frozen=True)
class Probe:
    """What the CUDA runtime says.

    Args:
        driver, runtime: highest CUDA version of the driver, and version of the runtime, as in ``13.0``; "" unknown.
        problem: why there are no GPUs; "" where there are.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    runtime: str = ""
    problem: str = ""


def probe_gpus(timeout_s: float = TIMEOUT_S) -> Probe:
    """The GPUs of this machine; never raises and never hangs."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Probe(problem=f"the CUDA runtime did not answer within {timeout_s:g} s")
    except OSError as error:
        return Probe(problem=f"no process could be started: {error}")
    return read_probe(done.returncode, done.stdout, done.stderr)


def read_probe(code: int, output: str, errors: str) -> Probe:
    """A probe from what its process printed."""
    try:
        raw = json.loads(output)
        gpus = tuple(Gpu(name, f"sm_{major}{minor}", memory // 2**20) for name, major, minor, memory in raw["gpus"])
        return Probe(gpus, _version(raw["driver"]), _version(raw["runtime"]), raw["problem"])
    except (ValueError, KeyError, TypeError):
        last = errors.strip().rpartition("\n")[2]
        return Probe(problem=f"the CUDA runtime ended with code {code}: {last}"[:300])


def _version(number: int | None) -> str:
    """13050 -> ``13.5``."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else ""

"""The one timer of all benchmarks: warm-up, interleaved repeats, median and spread, environment, atomic JSON.

    timings = measure({"ours": lambda: f(x), "theirs": lambda: g(x)}, warmups=2, repeats=9)
    write_json(path, {"environment": environment("numpy"), "timings": [t.as_dict() for t in timings.values()]})

Benchmarks run as modules from the repository's root: ``python -m benchmarks.NAME``.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

#: Variables that change how many threads numeric libraries use, recorded because they change results.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclasses.dataclass(frozen=True)
class Timing:
    """Wall times of one function, in seconds. The spread is the range between the quartiles."""

    name: str
    median_s: float
    quartile_low_s: float
    quartile_high_s: float
    fastest_s: float
    warmups: int
    repeats: int

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        low, high = self.quartile_low_s * 1e3, self.quartile_high_s * 1e3
        return f"{self.name}: {self.median_s * 1e3:.2f} ms (quartiles {low:.2f} to {high:.2f}, {self.repeats} repeats)"


def measure(
    functions: Mapping[str, Callable[[], object]],
    *,
    warmups: int = 2,
    repeats: int = 9,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time functions in turns, so that a slow spell of the machine falls on all of them alike.

    Args:
        functions: what to time, by name. Work on a device must be finished when a function returns.
        warmups: rounds that are run and not counted.
        repeats: rounds that are counted, at least 1.
        clock: seconds; ``time.thread_time`` for work of one thread on a machine that others use too.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(warmups):
        for function in functions.values():
            function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return {name: _timing(name, measured, warmups) for name, measured in seconds.items()}


def _timing(name: str, measured: list[float], warmups: int) -> Timing:
    low, median, high = np.percentile(measured, [25, 50, 75]).tolist()
    return Timing(name, median, low, high, min(measured), warmups, len(measured))


def environment(*distributions: str) -> dict[str, Any]:
    """What a result depends on: interpreter, processor count, load, thread settings, versions of ``distributions``."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        # Above the number of CPUs others were running too: absolute times are then too long.
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
        "versions": {name: importlib.metadata.version(name) for name in distributions},
    }


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write the document whole or not at all; the folder is made if it is missing. NaN is an error (ValueError)."""
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)

"""Power, clocks and temperature while something runs, as ``nvidia-smi`` says them."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: Fields of ``nvidia-smi --query-gpu``, and what they are called here.
FIELDS = {
    "power.draw": "power_w",
    "clocks.sm": "sm_mhz",
    "clocks.mem": "memory_mhz",
    "temperature.gpu": "temperature_c",
    "utilization.gpu": "utilisation_percent",
}
EVERY_S = 0.2
#: Asks for one line of all fields; raises FileNotFoundError where there is no nvidia-smi.
Ask = Callable[[Sequence[str]], str]


def ask_nvidia_smi(fields: Sequence[str]) -> str:
    command = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout


def sample(ask: Ask) -> dict[str, float | None]:
    """One reading; None where the GPU does not say (``[N/A]``)."""
    line = ask(list(FIELDS)).strip().splitlines()[0].split(",")
    return {name: _number(value) for name, value in zip(FIELDS.values(), line, strict=True)}


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def while_running(
    load: Callable[[], None], seconds: float, ask: Ask = ask_nvidia_smi, every_s: float = EVERY_S
) -> dict[str, Any]:
    """Readings at rest, then during ``load`` repeated for ``seconds``; medians, the largest, and joules a run.

    The first quarter of the readings is left out of the medians: clocks and power are still rising.

    Args:
        load: once; its work is finished when it returns.
    """
    rest = sample(ask)
    readings: list[dict[str, float | None]] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(every_s):
            readings.append(sample(ask))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    started, runs = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        load()
        runs += 1
    elapsed = time.perf_counter() - started
    stop.set()
    reader.join()
    steady = readings[len(readings) // 4 :]
    medians = {name: _median([reading[name] for reading in steady]) for name in FIELDS.values()}
    power = medians["power_w"]
    return {
        "at_rest": rest,
        "readings": len(readings),
        "median": medians,
        "largest_power_w": max((r["power_w"] for r in readings if r["power_w"] is not None), default=None),
        "runs_per_second": runs / elapsed,
        "joules_per_run": None if power is None else power * elapsed / runs,
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None

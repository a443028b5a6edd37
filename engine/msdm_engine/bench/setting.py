"""One setting of the bench, and a process of its own for it: peak memory and thread counts are a process's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msdm_engine import errors
from msdm_engine.errors import BackendError, RequestError
from msdm_engine.pipeline.parallel import MAX_PARALLEL

#: Variables by which the libraries of matrix products take their number of threads, when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Setting:
    """What is sampled.

    Args:
        batch: pairs at once, 1 to 256.
        size_px: side of a pair, 16 to 4096.
        steps: denoising steps, 1 to 1000.
        threads: CPU threads of a batch, 1 to 1024.
        parallel: batches side by side, 1 to 1024.

    Raises:
        RequestError: a number out of range.
    """

    batch: int
    size_px: int
    steps: int
    threads: int
    parallel: int = 1

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("batch", self.batch, 1, 256),
            ("size_px", self.size_px, 16, 4096),
            ("steps", self.steps, 1, 1000),
            ("threads", self.threads, 1, MAX_PARALLEL),
            ("parallel", self.parallel, 1, MAX_PARALLEL),
        ):
            if not low <= value <= high:
                raise RequestError(f"bench: {name} is {value}", note=f"{low} to {high}")

    def __str__(self) -> str:
        shared = f"{self.parallel} x {self.threads}" if self.parallel > 1 else str(self.threads)
        return f"batch {self.batch}, {self.size_px} px, {self.steps} steps, {shared} thread(s)"


@dataclass(frozen=True)
class Plan:
    """How a setting is measured.

    Args:
        bundle: folder; None: the reference bundle.
        repeats: batches that are timed, after one that warms up.
        singles: single requests that are timed for the percentiles of their latency; 0: none.
        set_pairs: pairs that are written as a set for the stages' shares; 0: none.
    """

    bundle: Path | None
    backend: str
    precision: str
    repeats: int
    singles: int = 0
    set_pairs: int = 0


def in_process(module: str, threads: int, given: Any) -> dict[str, Any]:
    """Runs ``python -m msdm_engine.bench.MODULE`` with so many threads, hands it JSON and takes its JSON.

    Raises:
        MsdmError: of the class and with the parts that the process reported.
        BackendError: the process ended without a result (out of memory, say).
    """
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    command = [sys.executable, "-m", f"msdm_engine.bench.{module}"]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, env=environment)
    try:
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise BackendError(
            f"bench: the process of {json.dumps(given)[:200]} ended without a result: {last[0]}",
            note="out of memory ends a process so",
            hint="give smaller sizes or batches",
        ) from error
    if "error" in told:
        name, what, note, hint = told["error"]
        raise getattr(errors, name)(what, note=note, hint=hint)
    return told


def as_given(setting: Setting, plan: Plan) -> dict[str, Any]:
    """For the process."""
    bundle = str(plan.bundle.resolve()) if plan.bundle else None
    return {"setting": asdict(setting), "plan": asdict(plan) | {"bundle": bundle}}

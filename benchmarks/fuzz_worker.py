"""Worker processes of the fuzzer: time and memory are limited, and a crash is attributed to its case."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import click
import cv2
from benchmarks.fuzz_targets import Workspace, run_case, target_of

ROOT = Path(__file__).resolve().parents[1]
#: How the error of a case begins whose worker did not survive it.
NATIVE = "native code:"


@dataclass(frozen=True)
class Limits:
    """Of a case (seconds), of a worker (address space beyond its code, cases)."""

    seconds: float
    gib: float
    chunk: int


class TooSlow(BaseException):
    """The case did not end in time; not an Exception, so that nothing takes it for a broken input."""


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def run_one(seed: int, space: Workspace, only: str | None, seconds: float) -> dict[str, Any]:
    """Runs a case under its time limit."""
    signal.signal(signal.SIGALRM, _too_slow)
    found: dict[str, Any] = {"seed": seed, "target": target_of(seed, only)[0]}
    start = time.perf_counter()
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        found["outcome"] = run_case(seed, space, only)
    except BaseException as error:  # whatever it is, it is what is looked for; a panic of Rust is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        found |= {"outcome": "failed", "error": type(error).__name__, "trace": traceback.format_exc()[-3000:]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {**found, "seconds": round(time.perf_counter() - start, 4)}


def work(first: int, count: int, only: str | None, log: Path, limits: Limits) -> None:
    """A worker: one line to ``log`` before each case, and one after it."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder, log.open("a", buffering=1) as file:
        space = Workspace.make(Path(folder) / "work")
        if sys.platform == "linux":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + int(limits.gib * 2**30),) * 2)
        for seed in range(first, first + count):
            file.write(json.dumps({"begun": seed}) + "\n")
            file.write(json.dumps(run_one(seed, space, only, limits.seconds)) + "\n")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        file.write(json.dumps({"peak_mib": round(peak)}) + "\n")


def run_chunk(first: int, count: int, only: str | None, limits: Limits) -> Iterator[dict[str, Any]]:
    """Runs cases in a worker; after a crash of it, goes on behind the case that crashed."""
    while count > 0:
        lines, exit_code, killed, said = _worker(first, count, only, limits)
        yield from (line for line in lines if "begun" not in line)
        if exit_code == 0:
            return
        begun = [line["begun"] for line in lines if "begun" in line]
        if not begun:
            raise click.ClickException(f"the worker did not start:\n{said}")
        what = f"{NATIVE} {'hang' if killed else f'exit {exit_code}'}"
        target = target_of(begun[-1], only)[0]
        row = {"seed": begun[-1], "target": target, "outcome": "failed", "error": what, "seconds": 0.0}
        yield {**row, "trace": said[-400:]}  # of others too: a native crash leaves no word of its own
        count -= begun[-1] + 1 - first
        first = begun[-1] + 1


def _worker(first: int, count: int, only: str | None, limits: Limits) -> tuple[list[dict[str, Any]], int, bool, str]:
    """Lines of a worker's log, its exit code, whether it was killed, and the end of what it said."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        log.touch()
        command = [
            sys.executable,
            "-m",
            "benchmarks.fuzz",
            "--worker",
            str(log),
            "--seed",
            str(first),
            "--n",
            str(count),
        ]
        command += ["--seconds", str(limits.seconds), "--gib", str(limits.gib), *(["--only", only] if only else [])]
        with (Path(folder) / "stderr").open("w+b") as errors:
            process = subprocess.Popen(command, cwd=ROOT, stdout=errors, stderr=errors)
            killed = _watch(process, log, limits.seconds)
            errors.seek(0)
            said = errors.read()[-2000:].decode(errors="replace")
        return [json.loads(line) for line in log.read_text().splitlines()], process.returncode, killed, said


def _watch(process: subprocess.Popen[bytes], log: Path, seconds: float) -> bool:
    """Waits for the worker; kills it, and returns True, where a case holds it much longer than its own limit."""
    size, since = -1, time.monotonic()
    while True:
        try:
            process.wait(0.2)
            return False
        except subprocess.TimeoutExpired:
            now = log.stat().st_size
            if now != size:
                size, since = now, time.monotonic()
            elif time.monotonic() - since > 2 * seconds + 20:
                process.kill()
                process.wait()
                return True

"""What an NVIDIA machine proves of msdm: ``python -m benchmarks.gpu_acceptance``.

Runs its parts one after another, each in a process of its own with a time limit under eight minutes, and writes
``benchmarks/results/gpu_acceptance.json`` and ``gpu_acceptance.md`` after each. Run it again and it goes on: parts that
were proved on the same GPU with the same driver, packages and bundle are kept; ``--again PART`` runs one anew. A part
that cannot tell says what it lacks; nothing stands in for it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts import PARTS, CannotTell
from benchmarks.timer import environment, write_json

from msdm_engine import Bundle
from msdm_engine.doctor.probe import probe_gpus
from msdm_engine.doctor.report import installed_versions
from msdm_engine.output.png import write_atomically

RESULT = Path(__file__).parent / "results" / "gpu_acceptance.json"
LIMIT_S = 460.0
PROVED, CANNOT_TELL, FAILED = "proved", "cannot tell", "failed"


def run_part(name: str) -> dict[str, Any]:
    """One part, here: its state, and what it found."""
    try:
        return {"state": PROVED, "found": PARTS[name]()}
    except CannotTell as reason:
        return {"state": CANNOT_TELL, "why": str(reason)}
    except Exception as error:  # noqa: BLE001 (a report of everything that can fail on a strange machine)
        return {"state": FAILED, "why": f"{type(error).__name__}: {error}"[:2000]}


def run_apart(name: str, limit_s: float = LIMIT_S) -> dict[str, Any]:
    """One part in a process of its own: a crash or a hang of a driver is its result, not our end."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "part.json"
        command = [sys.executable, "-m", "benchmarks.gpu_acceptance", "--part", name, "--into", str(file)]
        try:
            done = subprocess.run(command, timeout=limit_s, capture_output=True, text=True, check=False)
        except subprocess.TimeoutExpired:
            return {"state": FAILED, "why": f"not finished within {limit_s:g} s", "seconds": limit_s}
        if done.returncode == 0:
            result: dict[str, Any] = json.loads(file.read_text())
        else:
            last = done.stderr.strip().rpartition("\n")[2]
            result = {"state": FAILED, "why": f"the process ended with code {done.returncode}: {last}"}
    return result | {"seconds": round(time.perf_counter() - started, 1)}


def identity() -> dict[str, Any]:
    """What a proof is for: the GPUs, the driver, the packages that drive them, and the bundle."""
    probe = probe_gpus()
    return {
        "gpus": [gpu.name for gpu in probe.gpus],
        "driver": probe.driver,
        "packages": installed_versions(),
        "bundle": Bundle.open().sha256,
    }


def kept(document: dict[str, Any], key: dict[str, Any], again: str | None) -> dict[str, Any]:
    """Parts of an earlier run that need not be run again: proved, with the same :func:`identity`."""
    if document.get("for") != key:
        return {}
    parts: dict[str, Any] = document.get("parts", {})
    return {name: part for name, part in parts.items() if part["state"] == PROVED and name != again}


def page(document: dict[str, Any]) -> str:
    """The result as Markdown."""
    gpus = ", ".join(document["for"]["gpus"]) or "no GPU"
    lines = [f"# GPU acceptance: {gpus}", "", "| part | state | seconds | found |", "| --- | --- | --- | --- |"]
    for name in PARTS:
        part = document["parts"].get(name, {"state": "not run"})
        found = json.dumps(part["found"]) if "found" in part else part.get("why", "")
        lines.append(f"| {name} | {part['state']} | {part.get('seconds', '')} | {found.replace('|', '/')} |")
    unproved = [name for name in PARTS if document["parts"].get(name, {}).get("state") != PROVED]
    lines += ["", f"Unproven: {', '.join(unproved) or 'nothing'}.", ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", choices=list(PARTS), help="run this part anew")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.part:
        write_json(asked.into, run_part(asked.part))
        return 0
    key = identity()
    old = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    document: dict[str, Any] = {"for": key, "parts": kept(old, key, asked.again), "environment": environment("numpy")}
    for name in PARTS:
        if name not in document["parts"]:
            document["parts"][name] = run_apart(name)
            write_json(asked.out, document)
            write_atomically(asked.out.with_suffix(".md"), page(document).encode())
        part = document["parts"][name]
        print(f"{name:12s} {part['state']:12s} {part.get('why', '')}", flush=True)
    return int(any(part["state"] == FAILED for part in document["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())

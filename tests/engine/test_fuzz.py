"""A short run of the fuzzer; ten thousand cases are in docs/engine.md. It is a program: nothing imports benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the fuzzer makes its bundle with onnx, which the export extra brings")
pytest.importorskip("resource", reason="limits of POSIX")

ROOT = Path(__file__).resolve().parents[2]


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_two_hundred_cases_end_in_typed_errors_or_success(tmp_path: Path) -> None:
    done = fuzz("--n", "200", "--seed", "9000000", "--json", str(tmp_path / "fuzz.json"))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "fuzz.json").read_text())
    assert found["cases"] == 200 and found["failures"] == []
    # Each target gets at least a tenth of the cases, and both sides of it are reached.
    assert set(found["outcomes"]) == {"manifest", "files", "request", "mask", "picture"}
    assert sum(counts.get("accepted", 0) for counts in found["outcomes"].values()) >= 10
    assert sum(count for counts in found["outcomes"].values() for count in counts.values()) == 200


def test_a_failure_is_attributed_to_its_seed_and_fails_the_run(tmp_path: Path) -> None:
    """With no time at all, every case is too slow."""
    done = fuzz("--n", "3", "--seed", "5", "--seconds", "0.000001", "--json", str(tmp_path / "fuzz.json"))
    failures = json.loads((tmp_path / "fuzz.json").read_text())["failures"]
    assert done.returncode == 1
    assert [(failure["seed"], failure["error"]) for failure in failures] == [(5 + i, "TooSlow") for i in range(3)]


def test_a_case_can_be_replayed() -> None:
    first, second = fuzz("--replay", "7000003"), fuzz("--replay", "7000003")
    assert first.returncode == 0 and first.stdout == second.stdout != ""

"""What the doctor says of machines that are described to it, and of this one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

from msdm_engine.cli import main
from msdm_engine.doctor import probe as probing
from msdm_engine.doctor import report
from msdm_engine.doctor.probe import Gpu, Probe, probe_gpus, read_probe
from msdm_engine.doctor.report import findings
from msdm_engine.errors import BackendError

H100 = Probe((Gpu("H100", "sm_90", 81559),), driver="13.0", runtime="13.0")
RTX = Probe((Gpu("RTX 4090", "sm_89", 24564),), driver="13.0", runtime="13.0")
NONE = Probe(problem="no driver")


def troubles(probe: Probe, versions: dict[str, str], has: Any = lambda _: True) -> dict[str, str]:
    return {f.what: f"{f.state} -> {f.mend}" for f in findings(probe, versions, has) if f.trouble}


def test_a_machine_with_nothing_is_not_wrong() -> None:
    found = findings(NONE, {}, lambda _: False)
    assert not [finding for finding in found if finding.trouble]
    shown = "\n".join(map(str, found))
    for mend in ("msdm[cpu]", "msdm[cuda]", "msdm[rtx]", "NVIDIA's package index"):
        assert mend in shown


def test_both_onnx_runtimes_at_once() -> None:
    said = troubles(NONE, {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.32.0"})
    assert "overwritten" in said["ONNX Runtime"]
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in said["ONNX Runtime"]


@pytest.mark.parametrize(
    ("probe", "versions", "what", "said"),
    [
        (NONE, {"onnxruntime": "1.32.0"}, "ONNX Runtime", "its module is gone"),
        (
            RTX,
            {"onnxruntime-gpu": "1.32.0", "onnxruntime-ep-nv-tensorrt-rtx": "0.5.0"},
            "ONNX Runtime",
            "runs on the plain onnxruntime",
        ),
        (NONE, {"onnxruntime": "1.18.1"}, "onnxruntime", "too old"),
        (NONE, {"tensorrt-rtx-cu13": "1.7.1.116"}, "Polygraphy", "built through it"),
        (NONE, {"cuda-bindings": "13.5.0", "cuda-python": "12.9.0"}, "cuda-python", "same major version"),
        (H100, {"tensorrt-rtx-cu13": "1.7.1.116", "polygraphy": "0.53.6"}, "TensorRT", "does not run on H100"),
        (Probe(RTX.gpus, "12.8", "13.0"), {}, "CUDA", "older than the runtime"),
    ],
)
def test_what_does_not_fit_is_named(probe: Probe, versions: dict[str, str], what: str, said: str) -> None:
    assert said in troubles(probe, versions, lambda _: False)[what]


def test_a_gpu_with_the_cpu_runtime_is_told_of_the_other() -> None:
    found = {f.what: f for f in findings(RTX, {"onnxruntime": "1.32.0"}, lambda _: True)}
    assert "msdm[gpu]" in found["ONNX Runtime"].mend
    assert not found["ONNX Runtime"].trouble
    assert found["NVIDIA GPU"].state == "RTX 4090, sm_89, 24564 MiB"


def test_what_the_probe_prints_is_read() -> None:
    printed = {"driver": 13000, "runtime": 13050, "gpus": [["RTX 4090", 8, 9, 24564 * 2**20]], "problem": ""}
    assert read_probe(0, json.dumps(printed), "") == Probe(RTX.gpus, "13.0", "13.5")
    assert read_probe(-11, "", "boom\nSegmentation fault").problem.endswith("code -11: Segmentation fault")
    assert "code 0" in read_probe(0, "[]", "").problem


def test_a_driver_that_hangs_does_not_hang_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_SCRIPT", "import time; time.sleep(60)")
    assert probe_gpus(timeout_s=0.2).problem == "the CUDA runtime did not answer within 0.2 s"
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert probe_gpus().problem.startswith("no process could be started")


def test_this_machine_is_probed_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    run = subprocess.run

    def watched(command: list[str], **options: Any) -> Any:
        started.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    found = probe_gpus()
    assert bool(found.gpus) != bool(found.problem)
    assert len(started) == 1


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "probe_gpus", lambda: NONE)
    monkeypatch.setattr(report, "installed_versions", lambda: {"onnxruntime": "1.32.0"})
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda _: object())
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "nothing is wrong" in result.output
    monkeypatch.setattr(report, "installed_versions", lambda: {"onnxruntime": "1", "onnxruntime-gpu": "1"})
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == BackendError.exit_code
    assert "something is wrong with ONNX Runtime" in result.output

"""The GPU acceptance without a GPU, and its pipeline on a recorded CUDA. Programs: nothing imports benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from msdm_engine.bundle import reference_bundle
from msdm_engine.doctor.probe import probe_gpus

ROOT = Path(__file__).parents[2]


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_pipeline_on_a_recorded_cuda() -> None:
    done = program("benchmarks.gpu_fakes")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["launched_equal"]
    assert report["replayed_equal"]
    assert report["mode"] == "cudaStreamCaptureModeThreadLocal"
    # Seven rows, seven launches, and nothing else between begin and end: no allocation, copy or synchronisation.
    inside = ["cudaStreamBeginCapture", *["cuLaunchKernel"] * 7, "cudaStreamEndCapture"]
    assert report["while_captured"] == [*inside, "cudaGraphInstantiate", "cudaGraphDestroy"]
    assert report["after_a_spoilt_capture"] == ["cudaMalloc returned 900", "cudaStreamEndCapture", "cudaGetLastError"]
    assert report["left_in_memory"] == 0


def test_the_kernels_compile_without_a_gpu() -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-python is not installed: pip install 'msdm[cuda]'")
    code = (
        "from cuda.bindings import nvrtc; from benchmarks.gpu_cuda import Cuda; "
        "print(min(len(Cuda(None, None, nvrtc).compile(target)) for target in ('sm_89', 'sm_90')))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    if "libnvrtc" in done.stderr:
        pytest.skip("NVRTC's library is not installed: pip install nvidia-cuda-nvrtc")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000


def test_without_a_gpu_every_part_says_what_it_lacks_and_proved_parts_are_kept(tmp_path: Path) -> None:
    if probe_gpus().gpus:
        pytest.skip("this machine has a GPU")
    if not reference_bundle().exists():
        pytest.skip("the reference bundle is not in this checkout")
    out = tmp_path / "acceptance.json"
    done = program("benchmarks.gpu_acceptance", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(out.read_text())
    assert {part["state"] for part in document["parts"].values()} == {"cannot tell"}
    assert all("no GPU" in part["why"] for part in document["parts"].values())
    page = out.with_suffix(".md").read_text()
    assert "Unproven: machine, kernels, graphs, torch, onnxruntime, tensorrt." in page
    for part in document["parts"].values():  # as if this were the second call on a machine that proved everything
        part.update(state="proved", found={"by": "hand"})
    out.write_text(json.dumps(document))
    assert program("benchmarks.gpu_acceptance", "--out", str(out), "--again", "kernels").returncode == 0
    states = {name: part["state"] for name, part in json.loads(out.read_text())["parts"].items()}
    assert states == dict.fromkeys(states, "proved") | {"kernels": "cannot tell"}

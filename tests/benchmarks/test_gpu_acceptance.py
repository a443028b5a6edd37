"""The GPU acceptance without a GPU, and its pipeline on a recorded CUDA. Programs: nothing imports benchmarks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from msdm_engine.bundle.reader import reference_bundle
from msdm_engine.doctor.probe import probe_gpus

ROOT = Path(__file__).parents[2]


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def rehearsed() -> dict[str, Any]:
    if not reference_bundle().exists():
        pytest.skip("the reference bundle is not in this checkout")
    done = program("benchmarks.gpu_fakes")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_solver_on_a_rehearsed_gpu(rehearsed: dict[str, Any]) -> None:
    report = rehearsed["kernels"]  # which also says that launched and replayed are NumPy's to the bit, or fails
    assert report["timed"] == ["launched", "replayed"]
    assert report["mode"] == "cudaStreamCaptureModeThreadLocal"
    # Between begin and end the runtime is asked for nothing: no allocation, copy or synchronisation.
    assert report["while_captured"] == [
        *("cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphGetNodes"),
        *("cudaGraphInstantiate", "cudaGraphDestroy", "cudaGraphUpload"),
    ]
    failed, *ended = report["after_a_spoilt_capture"]
    assert "cudaErrorStreamCaptureUnsupported (900)" in failed
    assert ended == ["cudaStreamEndCapture", "cudaGetLastError"]
    assert report["overlap"] == ["at once", "compute", "copies", "in turns"]
    assert report["left"] == 0


def test_the_denoiser_as_a_rehearsed_plan(rehearsed: dict[str, Any]) -> None:
    report = rehearsed["denoiser"]
    assert report["captured"]
    assert report["relative_l2"] == 0  # the same graph on the same processor
    assert report["calls_of_a_step"] == ["cudaMemcpyAsync"]  # on the device; the plan's own call is TensorRT's
    assert report["left"] == 0


def test_interop_power_and_throughput(rehearsed: dict[str, Any]) -> None:
    assert rehearsed["interop"] == {"dlpack": True, "cuda_array_interface": True, "borrowed": True}
    assert rehearsed["on_device"] == {"pairs": 13, "addresses": 2, "equal_to_the_bit": True}
    # At 100 W, joules a run times runs a second are 100; a field that the GPU does not have is none.
    assert rehearsed["power"] == {"power_w": 100.0, "memory_mhz": None, "watts_again": 100.0}
    assert rehearsed["throughput"] == {"settings": ["64 px, batch 4"], "not_reached": ["64 px, batch 4"]}


def test_the_kernels_compile_without_a_gpu() -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-python is not installed: pip install 'msdm[cuda]'")
    code = (
        "from cuda.bindings import nvrtc; from benchmarks.gpu_cuda import Compiler; "
        "print(min(len(Compiler(None, nvrtc).compile(target)) for target in ('sm_89', 'sm_90')))"
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
    unproven = page.split("Unproven:")[1]
    assert [word[:-1] for word in re.findall(r"(?<=- )[a-z_]+:", unproven)] == list(document["parts"])
    assert "- denoiser: The reference denoiser on the engine's device" in unproven
    for part in document["parts"].values():  # as if this were the second call on a machine that proved everything
        part.update(state="proved", found={"by": "hand"})
    out.write_text(json.dumps(document))
    assert program("benchmarks.gpu_acceptance", "--out", str(out), "--again", "kernels").returncode == 0
    states = {name: part["state"] for name, part in json.loads(out.read_text())["parts"].items()}
    assert states == dict.fromkeys(states, "proved") | {"kernels": "cannot tell"}


def test_a_part_runs_in_a_process_of_its_own() -> None:
    if probe_gpus().gpus:
        pytest.skip("this machine has a GPU")
    code = "import json; from benchmarks.gpu_acceptance import run_apart; print(json.dumps(run_apart('kernels')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["state"], found["why"][:6]) == ("cannot tell", "no GPU")
    assert found["seconds"] > 0

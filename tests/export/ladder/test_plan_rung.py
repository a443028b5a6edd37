"""The plans' rung on a rehearsed GPU whose plans compute the bundle's own typed graphs; and why it is not run."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine.backends.tensorrt import TensorRTBackend
from msdm_engine.bundle.plan_spec import PlanSpec
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.doctor.probe import Gpu, Probe
from msdm_engine.errors import BackendError
from msdm_engine.rehearsal.cuda import RehearsedCuda
from msdm_engine.rehearsal.tensorrt import RehearsedTensorRT, plan_bytes
from msdm_export.conditions import Size
from msdm_export.ladder import plan_rung
from msdm_export.ladder import verify as ladder
from msdm_export.ladder.errors import Tolerance
from msdm_export.ladder.report import failures, table
from msdm_export.plans.profiles import Profile
from msdm_export.sessions import run_session, session_from_model

SIZE = Size(64, 64, 1, 2)
VERSION = "1.7.1.116"
GPU = Probe((Gpu("Rehearsed GPU", "sm_89", 1024),), "13.5", "13.5")


@pytest.fixture
def planned(typed_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with a plan of each graph in fp16, for one shape."""
    folder = tmp_path / "planned"
    shutil.copytree(typed_bundle, folder)
    bundle, plans = Bundle.open(folder), {}
    profile = Profile((SIZE.height_px,) * 3, (SIZE.width_px,) * 3, (SIZE.samples,) * 3, (SIZE.branches,) * 3)
    (folder / "plans").mkdir(exist_ok=True)
    for graph, spec in bundle.in_precision("fp16").items():
        data, files = plan_bytes(graph, spec, VERSION), bundle.manifest.files
        source, compiled = files[bundle.manifest.graphs[graph].file].sha256, files[spec.file].sha256
        (folder / f"plans/{graph}.plan").write_bytes(data)
        plans[graph] = asdict(
            PlanSpec(
                f"plans/{graph}.plan", len(data), hashlib.sha256(data).hexdigest(), graph, source, compiled,
                "tensorrt-rtx", VERSION, "sm_89", "fp16", profile.dimensions(graph, spec, bundle.manifest.stride),
            )
        )  # fmt: skip
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"plans": plans}))
    return folder


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[float], RehearsedCuda]:
    """This machine with a GPU; plans compute the typed graphs, their denoiser's outputs times a factor."""

    def install(factor: float) -> RehearsedCuda:
        cuda = RehearsedCuda()

        def open_plans(name: str, bundle: Bundle, *, precision: str) -> Any:
            specs = bundle.in_precision(precision)
            sessions = {graph: session_from_model(bundle.contents[spec.file]) for graph, spec in specs.items()}

            def compute(graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
                outputs = run_session(sessions[graph], inputs)
                scale = np.float32(factor if graph == DENOISER else 1)
                return {key: value * scale for key, value in outputs.items()}

            device = CudaDevice(runtime=cuda)
            backend = TensorRTBackend(
                bundle, name, precision=precision, trt=RehearsedTensorRT(cuda, compute), device=device, cache=tmp_path
            )
            backend._owns_device = True
            return backend

        monkeypatch.setattr(plan_rung, "probe_gpus", lambda: GPU)
        monkeypatch.setattr(plan_rung, "open_backend", open_plans)
        monkeypatch.setattr(ladder, "SIZES", ())
        return cuda

    return install


def test_plans_are_compared_at_the_shapes_that_they_have(
    planned: Path, on_gpu: Callable[[float], RehearsedCuda]
) -> None:
    cuda = on_gpu(1.0)
    document = ladder.verify_bundle(planned, steps=2)
    rung = document["rungs"]["plan fp16 tensorrt-rtx"]
    assert rung["status"] == "passed", list(failures(document))
    assert rung["what"] == f"plans of TensorRT for RTX {VERSION} on the GPU"
    assert {found["worst_case"] for found in rung["graphs"][DENOISER].values()} == {str(SIZE)}
    assert (
        sum("plan fp16 tensorrt-rtx" in row for row in table(document)) == len(Bundle.open(planned).manifest.graphs) + 1
    )
    assert cuda.left == 0  # the backend is closed again


def test_a_plan_that_is_off_fails(planned: Path, on_gpu: Callable[[float], RehearsedCuda]) -> None:
    on_gpu(1.05)  # 5 %: a hundred roundings of float16
    document = ladder.verify_bundle(planned, steps=1)
    assert document["rungs"]["plan fp16 tensorrt-rtx"]["status"] == "failed"
    assert any("of denoiser at noise level" in line for line in failures(document))


def why(folder: Path, monkeypatch: pytest.MonkeyPatch, probe: Probe) -> str:
    monkeypatch.setattr(plan_rung, "probe_gpus", lambda: probe)
    tolerances = dict.fromkeys(("float32", "fp16", "bf16"), Tolerance(2.0**-11, {}, 2.0, 0.4))
    with plan_rung.plan_rungs(Bundle.open(folder), tolerances) as plans:
        (rung,) = plans
        assert rung.run is None
        return rung.not_run


def test_why_it_is_not_run(planned: Path, typed_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why(planned, monkeypatch, Probe(problem="no driver")) == "not run: no GPU (no driver)"
    hopper = Probe((Gpu("H", "sm_90", 1024),))
    said = why(planned, monkeypatch, hopper)
    assert said.startswith("not run: the bundle has no plan for sm_90; msdm-export build")
    assert "--backend tensorrt --target sm_90 --precision fp16" in said
    assert "no plan for sm_89" in why(typed_bundle, monkeypatch, GPU)

    def missing(*_: Any, **__: Any) -> Any:
        raise BackendError("TensorRT for RTX cannot be imported", hint="pip install 'msdm[rtx]'")

    monkeypatch.setattr(plan_rung, "open_backend", missing)
    found = why(planned, monkeypatch, GPU)
    assert found == "not run: TensorRT for RTX cannot be imported; pip install 'msdm[rtx]'"


def test_sizes_are_the_smallest_and_few() -> None:
    def plan(rows: int, batch: int, branches: int) -> PlanSpec:
        values = {"rows": rows, "columns": rows, "batch": batch, "branches": branches}
        profile = {name: (1, value, 2 * value) for name, value in values.items()}
        return PlanSpec("", 0, "", DENOISER, "", "", "tensorrt", "", "sm_90", "fp16", profile)

    plans = [plan(8, 4, 1), plan(4, 1, 1), plan(4, 1, 9), *(plan(16, batch, 1) for batch in range(1, 5))]
    found = plan_rung.sizes_of(plans, 16)
    assert found == (Size(64, 64, 1, 1), Size(128, 128, 4, 1), Size(256, 256, 1, 1), Size(256, 256, 2, 1))

"""Every graph of the bundle that ships, in float16, really compiled for two generations of RTX GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from msdm_engine.bundle.reader import Bundle, reference_bundle
from msdm_engine.contract import DENOISER
from msdm_export.cli import main
from msdm_export.plans.job import BuildRequest, build
from msdm_export.precision.variants import add_precision

TARGETS = ("sm_89", "sm_120")


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_the_reference_bundle_is_built_in_half_for_two_targets(tmp_path: Path, rtx: Any) -> None:
    if not reference_bundle().exists():
        pytest.skip("the reference bundle is not in this checkout")
    folder = tmp_path / "reference"
    graphs = add_precision(reference_bundle(), "fp16", out=folder).graphs
    build(BuildRequest(folder, "tensorrt-rtx", TARGETS, ("64:1",), "fp16"))
    bundle = Bundle.open(folder)
    plans = bundle.manifest.plans
    assert {(plan.graph, plan.target) for plan in plans.values()} == {(g, t) for g in graphs for t in TARGETS}
    for name, plan in plans.items():
        assert len(bundle.plan_bytes(name)) == plan.size
        layers = plan.build["layers"]
        # The walk has passed: what is not half is in the manifest, rule by rule. That is never most of it.
        kept = {n for entry in graphs[plan.graph].variants["fp16"].details["float32"] for n in entry["nodes"]}
        matrix = layers.get("CONVOLUTION", {}), layers.get("MATRIX_MULTIPLY", {})
        assert sum(by.get("HALF", 0) for by in matrix) > 10 * sum(by.get("FLOAT", 0) for by in matrix)
        assert set(layers.get("REDUCE", {})) <= {"FLOAT"}
        assert kept or plan.graph != DENOISER
    result = CliRunner().invoke(main, ["inspect", str(folder), "--commands"])
    assert result.exit_code == 0, result.output
    assert result.output.count("--compute-capabilities 12.0") == len(graphs)

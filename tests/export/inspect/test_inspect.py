"""What `msdm-export inspect` says of the bundle that the tests export."""

from __future__ import annotations

from dataclasses import replace

import pytest
from click.testing import CliRunner

from msdm_engine.bundle.plan_spec import PlanSpec
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER
from msdm_engine.doctor import probe
from msdm_engine.doctor.probe import Gpu, Probe
from msdm_engine.errors import RequestError
from msdm_export.cli import main
from msdm_export.inspect.commands import polygraphy_command, trtexec_command
from msdm_export.inspect.report import missing_lines, plan_lines

RTX, H100 = Gpu("RTX 4090", "sm_89", 24564), Gpu("H100", "sm_90", 81559)


def plan_of(bundle: Bundle) -> PlanSpec:
    sha256 = bundle.manifest.files["denoiser.onnx"].sha256
    profile = {"batch": (1, 2, 4), "branches": (1, 1, 1), "rows": (2, 2, 2), "columns": (2, 2, 2)}
    return PlanSpec(
        "plans/one.plan", 1, "0" * 64, DENOISER, sha256, sha256, "tensorrt-rtx", "1.7", "sm_120", "float32",
        profile, {"level": 4, "workspace_mib": 64},
    )  # fmt: skip


def test_the_command_says_what_is_there_and_what_it_costs(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "probe_gpus", lambda: Probe((RTX,)))
    result = CliRunner().invoke(main, ["inspect", str(bundle.folder), "--profile", "64:2"])
    assert result.exit_code == 0, result.output
    for said in ("64 px, batch 2", "| denoiser | float32 |", "MiB for a batch", "2 for each multiply-accumulate",
                 "plans: none", "RTX 4090 (sm_89): no plan of conditioner, critic, denoiser, text_encoder",
                 "--backend tensorrt-rtx --target sm_89 --precision float32"):  # fmt: skip
        assert said in result.output


def test_what_is_missing_depends_on_the_gpu(bundle: Bundle) -> None:
    (line,) = missing_lines(bundle, Probe(problem="no driver"))
    assert "no GPU (no driver)" in line
    *_, command = missing_lines(bundle, Probe((H100,)))
    assert "--backend tensorrt --target sm_90" in command


def test_the_commands_hold_shapes_target_and_options(bundle: Bundle) -> None:
    plan = plan_of(bundle)
    polygraphy, trtexec = polygraphy_command(bundle, plan), trtexec_command(bundle, plan)
    for said in ("POLYGRAPHY_USE_TENSORRT_RTX=1 polygraphy convert denoiser.onnx", "guidance:[1,4]",
                 "--compute-capabilities 12.0", "--builder-optimization-level 4", "workspace:64M"):  # fmt: skip
        assert said in polygraphy
    for said in ("tensorrt_rtx --onnx=denoiser.onnx", "guidance:1x4", "--builderOptimizationLevel=4", "row:5,"):
        assert said in trtexec
    assert trtexec_command(bundle, replace(plan, backend="tensorrt")).startswith("trtexec ")
    assert "--strip" not in polygraphy + trtexec
    stripped = replace(plan, options={"stripped": True})
    assert "--strip-plan" in polygraphy_command(bundle, stripped)
    assert "--stripWeights" in trtexec_command(bundle, stripped)
    assert "--strongly" in trtexec_command(bundle, replace(plan, backend="tensorrt"))


def test_the_cost_is_that_of_one_shape(bundle: Bundle) -> None:
    result = CliRunner().invoke(main, ["inspect", str(bundle.folder), "--profile", "64:1,2"])
    assert result.exit_code == RequestError.exit_code
    assert "profile '64:1,2' is 2 shapes" in result.output


def test_a_plan_of_a_precision_that_is_gone_is_stale_and_counts_as_missing(bundle: Bundle) -> None:
    plan = replace(plan_of(bundle), target="sm_89")

    def missing(plan: PlanSpec) -> str:
        listed = replace(bundle, manifest=replace(bundle.manifest, plans={"one": plan}))
        return next(missing_lines(listed, Probe((RTX,))))

    assert missing(plan).endswith("no plan of conditioner, critic, text_encoder")
    for stale in (replace(plan, precision="fp16"), replace(plan, graph_sha256="1" * 64)):
        assert missing(stale).endswith("no plan of conditioner, critic, denoiser, text_encoder")
        listed = replace(bundle, manifest=replace(bundle.manifest, plans={"one": stale}))
        assert "STALE" in "\n".join(plan_lines(listed, commands=True))


def test_plans_are_listed_and_a_stale_one_is_called_so(bundle: Bundle) -> None:
    plan = plan_of(bundle)
    stale = replace(plan, compiled_sha256="1" * 64)
    listed = replace(bundle, manifest=replace(bundle.manifest, plans={"fresh": plan, "old": stale}))
    lines = list(plan_lines(listed, commands=True))
    fresh, old = (next(line for line in lines if line.startswith(f"  {name}:")) for name in ("fresh", "old"))
    assert fresh.endswith("sm_120 with TensorRT for RTX 1.7, a range of shapes")
    assert old.endswith("STALE: the graph has changed since")

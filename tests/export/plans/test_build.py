"""Real builds of tiny graphs: what is written, what is kept, and every way a build fails."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner

from msdm_engine.bundle.folder import claimed
from msdm_engine.bundle.plans import find_plan
from msdm_engine.bundle.reader import Bundle, reference_bundle
from msdm_engine.contract import DENOISER, TEXT_ENCODER
from msdm_engine.errors import BackendError, BundleError, OutputError, RequestError
from msdm_export.cli import main
from msdm_export.plans.job import BuildRequest, build
from msdm_export.plans.options import BuildOptions
from msdm_export.plans.writer import bundle_to_build_in

pytestmark = [
    pytest.mark.usefixtures("rtx"),
    # Polygraphy sets an empty timing cache whatever it builds with; TensorRT for RTX has none and says so.
    pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning"),
]


def request_for(folder: Path, **changes: Any) -> BuildRequest:
    return replace(BuildRequest(folder, "tensorrt-rtx", ("sm_89",), ("64:1",)), **changes)


def test_a_build_writes_each_graph_hashed_with_what_made_it(micro: Path, rtx: Any) -> None:
    before = Bundle.open(micro)
    rows = build(request_for(micro, targets=("sm_120",), profiles=("64:1,2:1,2",)))
    bundle = Bundle.open(micro)
    # Denoiser: 2 batches x 2 branches; conditioner: 1, 2, 4 samples; text encoder: one text at a time.
    assert sorted(row.spec.graph for row in rows) == ["conditioner"] * 3 + ["denoiser"] * 4 + ["text_encoder"]
    assert bundle.manifest.plans == {row.name: row.spec for row in rows}
    assert {plan.name for plan in (micro / "plans").iterdir()} == {f"{row.name}.plan" for row in rows}
    plan = bundle.manifest.plans["denoiser-fp16-sm_120-rtx-64x64-b2-g1"]
    assert plan.graph_sha256 == before.manifest.files["denoiser.onnx"].sha256
    assert plan.compiled_sha256 == before.manifest.files["denoiser.fp16.onnx"].sha256
    assert (plan.backend, plan.version, plan.target, plan.precision) == ("tensorrt-rtx", rtx.version, "sm_120", "fp16")
    assert plan.profile == {"batch": (2,) * 3, "rows": (4,) * 3, "columns": (4,) * 3, "branches": (1,) * 3}
    assert plan.static
    assert plan.options["capture"] == {
        "aux_streams": 0,
        "allocation": "user",
        "user_allocation_flag": True,
        "specialisation": "eager",
    }
    assert plan.build["layers"]["CONVOLUTION"] == {"HALF": 1}
    assert len(bundle.plan_bytes("denoiser-fp16-sm_120-rtx-64x64-b2-g1")) == plan.size


def test_the_same_inputs_again_build_nothing_and_damage_builds_that_plan_again(micro: Path) -> None:
    first = build(request_for(micro))
    text = (micro / "manifest.json").read_bytes()
    assert all(row.kept for row in build(request_for(micro)))
    assert (micro / "manifest.json").read_bytes() == text
    path = micro / first[0].spec.file
    path.write_bytes(path.read_bytes()[:-1])
    assert [row.kept for row in build(request_for(micro))] == [False, True, True]
    # Another level is another plan.
    assert not any(row.kept for row in build(request_for(micro, options=BuildOptions(level=1))))


def test_a_dynamic_build_is_one_plan_over_the_range(micro: Path) -> None:
    rows = build(request_for(micro, profiles=("32-64:1,2,4",), options=BuildOptions(dynamic=True)))
    plan = next(row.spec for row in rows if row.spec.graph == DENOISER)
    assert plan.profile == {"batch": (1, 2, 4), "rows": (2, 4, 4), "columns": (2, 4, 4), "branches": (1, 1, 1)}
    assert not plan.static
    assert plan.options["capture"]["specialisation"] == "none"
    assert plan.fits({"batch": 3, "rows": 3, "columns": 4, "branches": 1})
    assert not plan.fits({"batch": 5, "rows": 3, "columns": 4, "branches": 1})


def test_the_command_builds_in_a_copy_and_prints_a_table(micro: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    arguments = ["build", str(micro), "--target", "sm_86", "--profile", "64:1", "--out", str(out)]
    for expected in ("3 plan(s) built, 0 there already", "0 plan(s) built, 3 there already"):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        assert expected in result.output
        assert "1 HALF" in result.output
    assert not Bundle.open(micro).manifest.plans
    assert len(Bundle.open(out).manifest.plans) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        ["--target", "sm_1"],
        ["--precision", "bf16"],
        ["--profile", "60:1"],
        ["--memory-mib", "1", "--profile", "256:64"],
    ],
)
def test_nothing_is_copied_before_everything_is_checked(micro: Path, tmp_path: Path, wrong: list[str]) -> None:
    out = tmp_path / "copy"
    arguments = ["build", str(micro), "--target", "sm_86", "--profile", "64:1", "--out", str(out), *wrong]
    assert CliRunner().invoke(main, arguments).exit_code in (RequestError.exit_code, BundleError.exit_code)
    assert not out.exists()


def test_the_bundle_that_ships_is_not_built_into() -> None:
    result = CliRunner().invoke(main, ["build", "--target", "sm_89", "--profile", "64:1"])
    assert result.exit_code == RequestError.exit_code
    assert "--out FOLDER" in result.output
    assert not Bundle.open(reference_bundle()).manifest.plans


def test_a_copy_is_gone_on_with_only_if_it_is_of_the_same_bundle(micro: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    assert bundle_to_build_in(micro, out) == out
    assert bundle_to_build_in(micro, out) == out
    manifest = Bundle.open(micro).manifest
    (micro / "manifest.json").write_text(replace(manifest, training={"steps": 1}).to_json())
    with pytest.raises(OutputError, match="is another bundle than"):
        bundle_to_build_in(micro, out)


@pytest.mark.parametrize("arguments", [[], ["--target", "sm_89", "--all-targets"]])
def test_targets_are_named_or_all_of_them(micro: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["build", str(micro), "--profile", "64:1", *arguments])
    assert result.exit_code == RequestError.exit_code
    assert "--all-targets" in result.output


def test_an_operator_that_the_parser_lacks_is_named(write_bundle: Callable[..., Path]) -> None:
    folder = write_bundle(
        lambda _, text, __: text.replace("[matrix] product = Conv", "[odd] unused = Det(noise)\n product = Conv")
    )
    with pytest.raises(BackendError, match=r"operator Det of the node 'odd' in the graph 'denoiser'"):
        build(request_for(folder))


def test_a_failed_build_shows_the_builders_own_log(micro: Path) -> None:
    with pytest.raises(BackendError, match=r"cannot build the fp16 graph 'text_encoder' for sm_89") as caught:
        build(request_for(micro, options=BuildOptions(strip=True)))
    assert "its log ends: " in str(caught.value)
    assert "[ERROR]" in str(caught.value)
    assert "a machine with a GPU" in str(caught.value)
    assert not Bundle.open(micro).manifest.plans


def test_the_disk_fills_up_midway(micro: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    class Full:
        """A file that takes the first half of what is written."""

        def __init__(self, file: IO[bytes]) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> None:
            self.file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    def open_full(path: Path, mode: str = "r", *rest: Any) -> Any:
        file = opened(path, mode, *rest)
        return Full(file) if path.name.startswith(".denoiser") and "w" in mode else file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        build(request_for(micro))
    assert "plans finished before are whole" in str(caught.value)
    monkeypatch.undo()
    bundle = Bundle.open(micro)
    assert {plan.graph for plan in bundle.manifest.plans.values()} == {"text_encoder", "conditioner"}
    assert sorted(path.suffix for path in (micro / "plans").iterdir()) == [".plan", ".plan"]
    assert [row.kept for row in build(request_for(micro))] == [True, True, False]


def test_two_builds_into_one_bundle(micro: Path) -> None:
    with claimed(micro), pytest.raises(OutputError, match="is being written by another process"):
        build(request_for(micro))
    assert len(build(request_for(micro))) == 3  # and it is free again


def test_a_graph_of_another_precision_must_be_in_the_bundle(micro: Path) -> None:
    with pytest.raises(BundleError, match="no bf16 graph") as caught:
        build(request_for(micro, precision="bf16"))
    assert "msdm-export precision" in str(caught.value)
    with pytest.raises(RequestError, match="unknown precision 'half'"):
        build(request_for(micro, precision="half"))
    with pytest.raises(RequestError, match=r"precision fp8 for sm_86"):
        build(request_for(micro, precision="fp8", targets=("sm_86",)))


def test_a_timing_cache_is_for_the_other_tensorrt(micro: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--timing-cache"):
        build(request_for(micro, options=BuildOptions(timing_cache=tmp_path / "cache")))


def test_more_memory_than_the_gpu_has(micro: Path) -> None:
    # 256 x 256 px, 6 channels, batch 64, float32: 96 MiB a tensor, and the graph has five of them outside.
    with pytest.raises(RequestError, match=r"batch 64, 1 branch\(es\) needs about \d+ MiB for the graph 'denoiser'"):
        build(request_for(micro, profiles=("256:64",), memory_mib=400))
    assert not Bundle.open(micro).manifest.plans


def test_an_unknown_target(micro: Path) -> None:
    with pytest.raises(RequestError, match="unknown target 'sm_90' of the backend 'tensorrt-rtx'") as caught:
        build(request_for(micro, targets=("sm_90",)))
    assert "--backend tensorrt" in str(caught.value)


def test_plans_are_found_or_it_is_said_why_not(micro: Path, rtx: Any) -> None:
    build(request_for(micro, profiles=("64:1,2",)))
    bundle = Bundle.open(micro)
    asked: dict[str, Any] = {"backend": "tensorrt-rtx", "version": rtx.version, "target": "sm_89", "precision": "fp16"}
    asked["dimensions"] = {"batch": 2, "branches": 1, "rows": 4, "columns": 4}
    assert find_plan(bundle, DENOISER, **asked) == "denoiser-fp16-sm_89-rtx-64x64-b2-g1"
    assert find_plan(bundle, TEXT_ENCODER, **asked | {"dimensions": {"samples": 1}}).startswith("text_encoder")
    for change, said in (
        ({"target": "sm_86"}, "the compute capability sm_86"),
        ({"version": "1.0"}, "version 1.0"),
        ({"backend": "tensorrt"}, "is for TensorRT\n"),
        ({"precision": "float32"}, "precision float32"),
        ({"dimensions": asked["dimensions"] | {"batch": 3}}, "batch 3, branches 1, rows 4, columns 4"),
    ):
        with pytest.raises(BackendError, match=said) as caught:
            find_plan(bundle, DENOISER, **asked | change)
        assert "msdm-export build" in str(caught.value)

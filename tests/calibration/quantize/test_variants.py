"""Quantised graphs in a bundle: what the manifest says, what the engine runs, what TensorRT for RTX takes."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from msdm_calibration.cli import main
from msdm_calibration.quantize.settings import QuantizeSettings
from msdm_calibration.quantize.variants import quantize
from msdm_engine.backends import open_backend
from msdm_engine.bench.setting import Setting
from msdm_engine.bench.worker import denoiser_inputs
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER
from msdm_engine.engine import Engine
from msdm_engine.errors import BackendError, BundleError, RequestError
from msdm_engine.pairs import PairRequest
from msdm_export.plans.job import BuildRequest, build
from msdm_export.plans.network_walk import walk
from msdm_export.plans.source import source_of
from msdm_export.precision.variants import add_precision


@pytest.fixture
def typed(folder: Path) -> Path:
    """The bundle with FP16 graphs."""
    add_precision(folder, "fp16")
    return folder


def picture(folder: Path, precision: str) -> np.ndarray:
    request = PairRequest(index=0, seed=3, height_px=32, width_px=32)
    with Engine.open(folder, threads=1, precision=precision) as engine:
        return next(engine.sample([request], critic=False)).image


@pytest.mark.parametrize("to", ["int8", "fp8"])
@pytest.mark.parametrize("rest", ["float32", "fp16"])
def test_a_quantised_bundle_samples_what_float32_does_but_for_rounding(
    typed: Path, settings: QuantizeSettings, to: str, rest: str
) -> None:
    manifest = quantize(replace(settings, to=to, rest=rest))
    details = manifest.graphs[DENOISER].variants[to].details
    assert [entry["node"] for entry in details["quantized"]] == ["conv_outlier", "conv_sized"]
    assert details["rest"] == rest
    assert details["blocks"]["block.0"]["precision"] == to
    opened = Bundle.open(typed)
    model = onnx.load_from_string(opened.contents[manifest.graphs[DENOISER].variants[to].file])
    kinds = [node.op_type for node in model.graph.node]
    assert (kinds.count("QuantizeLinear"), kinds.count("DequantizeLinear")) == (2, 4)
    off = np.abs(picture(typed, to).astype(int) - picture(typed, "float32"))
    # E4M3 rounds by at most 2^-4, INT8 by less for all but small values; tanh and the sum over 144 products average.
    assert 0 < off.mean() < 255 * 2**-4


def test_openvino_convolves_the_codes_and_agrees_with_onnxruntime(typed: Path, settings: QuantizeSettings) -> None:
    openvino = pytest.importorskip("openvino", reason="needs the extra openvino")
    quantize(replace(settings, rest="float32"))
    bundle = Bundle.open(typed)
    given = denoiser_inputs(bundle, Setting(batch=1, size_px=32, steps=1, threads=1))
    expected = open_backend("onnxruntime", bundle, threads=1, precision="int8").run(DENOISER, given)["denoised"]
    core = openvino.Core()  # not the engine's backend: this bundle's other graphs have inputs that they do not read
    model = core.read_model(model=bundle.contents[bundle.in_precision("int8")[DENOISER].file])
    model.reshape({port.get_any_name(): list(given[port.get_any_name()].shape) for port in model.inputs})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({port.get_any_name(): given[port.get_any_name()] for port in model.inputs})["denoised"]
    # The same codes and 32-bit sums. Where a value lies between two codes, one of another order of sums may take the
    # other: of the 127 steps of the largest value, one, for a few values.
    assert np.linalg.norm(found - expected) < np.linalg.norm(expected) / 127
    told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kernels = [info["primitiveType"].astype(str) for info in told if info["layerType"].astype(str) == "Convolution"]
    assert sum("i8" in kernel.lower() for kernel in kernels) == 2  # conv_outlier and conv_sized


def test_the_default_rest_is_half_where_the_bundle_has_it(typed: Path, settings: QuantizeSettings) -> None:
    assert quantize(settings).graphs[DENOISER].variants["int8"].details["rest"] == "fp16"


def test_other_graphs_share_their_files_and_survive_new_half_graphs(typed: Path, settings: QuantizeSettings) -> None:
    quantize(settings)
    add_precision(typed, "fp16")
    add_precision(typed, "bf16")
    opened = Bundle.open(typed)  # verifies every file
    assert set(opened.in_precision("int8")) == set(opened.manifest.graphs)


def test_the_command_writes_a_new_bundle_and_says_what_it_kept(
    folder: Path, settings: QuantizeSettings, tmp_path: Path
) -> None:
    out = tmp_path / "new"
    arguments = ["quantize", str(folder), "--to", "int8", "--data", str(settings.data), "--out", str(out)]
    done = CliRunner().invoke(main, [*arguments, "--windows", "2", "--size", "32"])
    assert done.exit_code == 0, done.output
    assert "of a step's matrix work, 2 nodes, quantised" in done.output
    assert "int8" in Bundle.open(out).manifest.graphs[DENOISER].variants
    assert not Bundle.open(folder).manifest.graphs[DENOISER].variants
    told = CliRunner().invoke(main, ["where", str(out)])
    assert "no such arithmetic" not in told.output  # INT8 runs everywhere in the table
    assert "T4" in told.output


def test_a_rest_that_the_bundle_lacks_is_refused_with_the_command(settings: QuantizeSettings) -> None:
    with pytest.raises(BundleError, match="has no fp16 graph") as caught:
        quantize(replace(settings, rest="fp16"))
    assert "msdm-export precision" in str(caught.value.hint)


def test_a_missing_quantised_precision_names_its_command(folder: Path) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder).in_precision("int8")
    assert "msdm-calibrate quantize" in str(caught.value.hint)


@pytest.fixture(scope="session")
def rtx() -> object:
    for module in ("tensorrt_rtx", "polygraphy"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'msdm[rtx]'")
    from msdm_export.plans.toolchain import open_toolchain

    return open_toolchain("tensorrt-rtx")


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
@pytest.mark.parametrize("to", ["int8", "fp8"])
def test_every_graph_builds_for_a_target_and_the_walk_finds_the_codes(
    typed: Path, settings: QuantizeSettings, to: str, rtx: object
) -> None:
    quantize(replace(settings, to=to))
    rows = build(BuildRequest(typed, "tensorrt-rtx", ("sm_89",), ("32:1",), to))
    assert {row.spec.graph for row in rows} == set(Bundle.open(typed).manifest.graphs)
    layers = next(row.spec for row in rows if row.spec.graph == DENOISER).build["layers"]
    assert layers["DEQUANTIZE"] == {"HALF": 4}
    assert layers["QUANTIZE"] == {to.upper(): 2}
    if to == "fp8":
        with pytest.raises(RequestError, match="precision fp8 for sm_86"):
            build(BuildRequest(typed, "tensorrt-rtx", ("sm_86",), ("32:1",), to))


def test_the_walk_refuses_codes_that_the_manifest_does_not_list(
    typed: Path, settings: QuantizeSettings, rtx: object
) -> None:
    from msdm_export.plans.builder import parse

    quantize(settings)
    source = source_of(Bundle.open(typed), DENOISER, "int8")
    _, network, parser = parse(rtx, source, source.data)  # type: ignore[arg-type]
    assert walk(network, source, None)
    for quantised, problem in (
        (frozenset({"conv_sized"}), "'conv_outlier' .* does not list it as quantised"),
        (source.quantised | {"conv_last"}, "'conv_last' .* not codes of INT8"),
        (source.quantised | {"gone"}, "'gone' is no layer of matrix work"),
    ):
        with pytest.raises(BackendError, match=problem):
            walk(network, replace(source, quantised=quantised), None)
    del parser


def test_the_ladder_has_a_rung_whose_tolerance_is_the_measured_error(typed: Path, settings: QuantizeSettings) -> None:
    from msdm_export.ladder.rungs import _quantised_rung

    missing = _quantised_rung(Bundle.open(typed), "int8", 0.5)
    assert "msdm-calibrate quantize" in missing.not_run
    manifest = quantize(settings)
    rung = _quantised_rung(Bundle.open(typed), "int8", 0.5)
    entries = manifest.graphs[DENOISER].variants["int8"].details["quantized"]
    squares = [entry["relative_error_of_output"] ** 2 for entry in entries]
    assert rung.tolerance is not None
    assert rung.tolerance.roundoff == pytest.approx(np.sqrt(np.mean(squares)))
    assert rung.tolerance.depths[DENOISER]["denoised"] == 2  # one quantised layer after another

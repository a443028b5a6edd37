"""The ladder on the tiny bundle: it passes as it is, and names what was broken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import CONDITIONER, DENOISER
from msdm_engine.errors import NumericsError
from msdm_export.cli import main
from msdm_export.conditions import Case, Size, Visit, walk
from msdm_export.ladder import verify as ladder
from msdm_export.ladder.climb import Found, climb
from msdm_export.ladder.diverging import first_diverging
from msdm_export.ladder.errors import Difference, Tolerance
from msdm_export.ladder.report import as_json, failures, table
from msdm_export.ladder.rounded import depths, rounded
from msdm_export.ladder.rungs import FACTORS, Rung, reference_of, rungs_of
from msdm_export.precision.formats import FORMATS
from msdm_export.precision.rewrite import typed
from msdm_export.precision.rules import assign
from msdm_export.precision.variants import conditions_of, source_models
from msdm_export.sessions import run_session, session_from_model

SIZES = (Size(64, 64, 1, 1), Size(64, 80, 2, 2))
FP16 = FORMATS["fp16"]


@pytest.fixture(scope="module")
def document(typed_bundle: Path, checkpoint: Path, pack_path: Path) -> dict[str, Any]:
    """The report of the tiny bundle against its checkpoint."""
    return ladder.verify_bundle(typed_bundle, checkpoint=checkpoint, pack=pack_path, steps=2, sizes=SIZES)


def test_every_rung_passes_or_says_why_it_was_not_run(document: dict[str, Any]) -> None:
    status = {name: str(rung["status"]) for name, rung in document["rungs"].items()}
    assert {name for name, found in status.items() if found == "passed"} == {
        "onnx float32",
        "fp16",
        "fp16 on CPU",
        "bf16",
    }, list(failures(document))
    assert status["bf16 on CPU"] == "not run: ONNX Runtime's CPU has no bf16 arithmetic"
    assert status["plan"].startswith("not run: ")
    assert document["conditions"] == "masks of drawn (val)"
    json.dumps(document, allow_nan=False)


def test_coarser_formats_are_further_off(document: dict[str, Any]) -> None:
    by_level = {
        name: document["rungs"][name]["denoised_relative_l2_by_noise_level"]
        for name in ("onnx float32", "fp16", "bf16")
    }
    for level, fp16 in by_level["fp16"].items():
        # Roundoffs are 2^-24, 2^-11 and 2^-8: each step coarser by a factor of 8 at least, half of it asked for.
        assert by_level["onnx float32"][level] * 4 < fp16 < by_level["bf16"][level] / 4


def test_the_table_has_a_row_for_each_graph_and_trajectory(document: dict[str, Any]) -> None:
    rows = list(table(document))
    assert sum(" trajectory " in row for row in rows) == 4
    assert sum(" conditioner " in row for row in rows) == 4


def _scaled(model: onnx.ModelProto, factor: float) -> tuple[onnx.ModelProto, str]:
    """The model with the weights of the U-Net's last convolution scaled, and the name of that node."""
    last = next(node for node in model.graph.node if any(name.endswith("unet.leave.weight") for name in node.input))
    for initializer in model.graph.initializer:
        if initializer.name in last.input[1:]:
            values = onnx.numpy_helper.to_array(initializer) * np.float32(factor)
            initializer.CopyFrom(onnx.numpy_helper.from_array(values, initializer.name))
    return model, last.name


def _visits(bundle: Bundle) -> tuple[Case, np.ndarray]:
    (case,) = conditions_of(bundle, None).cases(SIZES[:1])
    return case, bundle.manifest.sampling.changed(steps=1).table()


def test_a_layer_that_overflows_in_half_is_named(typed_bundle: Path) -> None:
    bundle = Bundle.open(typed_bundle)
    sources = source_models(bundle)
    # Weights stay below 0.4 x 1.5e5 = 6e4; sums of 144 products of them leave float16's range.
    sources[DENOISER], layer = _scaled(sources[DENOISER], 1.5e5)
    half = typed(sources[DENOISER], FP16, assign(sources[DENOISER], {}).float32, ())
    models = sources | {DENOISER: rounded(half, FP16)}
    sessions = {name: session_from_model(model) for name, model in models.items()}
    exact = {name: session_from_model(model) for name, model in sources.items()}
    depth = {name: depths(model, FP16) for name, model in (sources | {DENOISER: half}).items()}
    bounds = Tolerance(FP16.roundoff, depth, FACTORS["fp16"], 0.4)
    rung = Rung("fp16", "planted", lambda graph, inputs: run_session(sessions[graph], inputs), bounds, models)
    case, rows = _visits(bundle)
    results = climb(lambda graph, inputs: run_session(exact[graph], inputs), sources, [rung], [case], rows)
    found = results["fp16"].outputs[DENOISER]["denoised"]
    assert not found.passed
    assert found.first_layer is not None
    assert (found.first_layer.node, found.first_layer.relative) == (layer, None)
    assert "is not finite" in str(found.first_layer)
    document = as_json([rung], results)
    (first, *_) = failures(document)
    assert f"at noise level {rows[0, 0]:.4g} is not finite x its tolerance" in first
    assert f"first diverging layer: Conv {layer}" in first
    json.dumps(document, allow_nan=False)


def test_a_layer_with_another_weight_is_named(typed_bundle: Path) -> None:
    bundle = Bundle.open(typed_bundle)
    sources = source_models(bundle)
    other, layer = _scaled(source_models(bundle)[DENOISER], 1.5)
    single = next(rung for rung in rungs_of(bundle) if rung.name == "onnx float32")
    assert single.run is not None
    assert single.tolerance is not None
    case, rows = _visits(bundle)
    reference, _ = reference_of(bundle, None)
    (visit,) = (visit for visit in walk(reference, case, rows) if visit.graph == DENOISER)
    found = first_diverging(sources[DENOISER], other, single.tolerance, visit)
    assert found is not None
    assert found.node == layer


def test_an_output_that_is_nearly_off_is_held_to_the_scale_of_its_family() -> None:
    outputs = {"map_features_0": np.full(4, 2.0, np.float32), "map_features_1": np.full(4, 1e-3, np.float32),
               "keys": np.full(4, 0.5, np.float32)}  # fmt: skip
    visit = Visit(CONDITIONER, None, {}, outputs)
    tolerance = Tolerance(2.0**-24, {CONDITIONER: {name: 4 for name in outputs}}, 8.0, 0.4)
    # factor u sqrt(L) of the largest of the family: 8 x 2^-24 x 2 x 2.
    assert tolerance.of(visit, "map_features_1") == tolerance.of(visit, "map_features_0") == 32 * 2.0**-24
    assert tolerance.of(visit, "keys") == 8 * 2.0**-24


def test_a_wrong_tolerance_fails(typed_bundle: Path) -> None:
    bundle = Bundle.open(typed_bundle)
    rung = next(rung for rung in rungs_of(bundle) if rung.name == "fp16")
    assert rung.tolerance is not None
    # float32's roundoff for float16 graphs: 2^13 too strict.
    strict = replace(rung, tolerance=replace(rung.tolerance, roundoff=2.0**-24))
    case, rows = _visits(bundle)
    reference, _ = reference_of(bundle, None)
    results = climb(reference, source_models(bundle), [strict], [case], rows)
    assert not results["fp16"].passed


def test_the_command_reports_a_failure_with_its_exit_code(
    typed_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "SIZES", SIZES[:1])
    monkeypatch.setitem(FACTORS, "fp16", 1e-3)
    report = tmp_path / "report.json"
    arguments = ["verify", str(typed_bundle), "--steps", "1", "--json", str(report), "--quiet"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == NumericsError.exit_code
    assert "x its tolerance" in result.output
    assert json.loads(report.read_text())["rungs"]["fp16"]["status"] == "failed"


def test_a_bundle_without_typed_graphs_says_the_command(bundle: Bundle) -> None:
    (rung,) = (rung for rung in rungs_of(bundle) if rung.name == "fp16")
    assert rung.run is None
    assert rung.not_run.endswith(f"msdm-export precision {bundle.folder} --to fp16")


def test_pictures_stand_beside_one_another(typed_bundle: Path, tmp_path: Path) -> None:
    path = ladder.write_pictures(typed_bundle, tmp_path / "pictures", precision="fp16", count=1)
    side = Bundle.open(typed_bundle).manifest.sampling.size_px
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape == (2 * side, side, 3)


def test_differences_are_what_they_say() -> None:
    found = Difference.between(np.array([3.0, 4.0, 0.0, 1.0]), np.array([3.0, 4.0, 0.0, 0.0]))
    assert (found.largest, found.rms, found.relative) == (1.0, 0.5, 1 / 5)
    assert Difference.between(np.array([np.nan]), np.array([0.0])).relative == np.inf
    assert Difference.between(np.array([0.0]), np.array([np.nan])).relative == np.inf


@pytest.mark.parametrize("bound", [1.0, np.nan, np.inf])  # the bound follows the reference's size
def test_a_reference_that_is_not_finite_passes_nothing(bound: float) -> None:
    found = Found()
    found.add(Difference.between(np.array([0.0]), np.array([np.nan])), bound, 0.5, "first")
    found.add(Difference.between(np.array([0.0]), np.array([0.0])), 1.0, 0.25, "second")
    assert (found.passed, found.sigma, found.case) == (False, 0.5, "first")


def test_the_denoiser_s_bound_follows_the_preconditioning() -> None:
    ones = np.ones((1, 6, 2, 2), np.float32)
    bounds = Tolerance(2.0**-11, {DENOISER: {"denoised": 16, "state_next": 16}}, 1.0, 1.0)
    row = np.array([1.0, 0.5, 0.25, 0.0, 0.0], np.float32)
    visit = Visit(DENOISER, 1.0, {"row": row}, {"denoised": ones, "state_next": ones})
    # u sqrt(16) = 2^-9, sigma / sqrt(sigma^2 + 1) = 1 / sqrt(2), and c_d = 1/4 for the next state; 2^-23 its own.
    assert bounds.of(visit, "denoised") == pytest.approx(2.0**-9 / np.sqrt(2) + 2.0**-23)
    assert bounds.of(visit, "state_next") == pytest.approx(2.0**-11 / np.sqrt(2) + 2.0**-23)

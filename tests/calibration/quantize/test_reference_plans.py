"""The bundle that ships, in INT8 and FP8, really compiled for RTX GPUs; calibrated on drawn squares, so for no use.

A plan that builds shows that TensorRT for RTX takes the graph, and the walk that the listed nodes read codes. It is no
evidence that an INT8 or FP8 kernel runs: that is chosen on the GPU.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from msdm_calibration.quantize.settings import QuantizeSettings
from msdm_calibration.quantize.variants import quantize
from msdm_engine.bundle.reader import Bundle, reference_bundle
from msdm_engine.contract import DENOISER
from msdm_export.plans.job import BuildRequest, build
from msdm_export.precision.variants import add_precision

#: The oldest of each. TensorRT for RTX multiplies no float32 matrices on Turing (sm_75), and the denoiser's sigma
#: embedding is kept in float32.
TARGETS = {"int8": "sm_86", "fp8": "sm_89"}


@pytest.fixture
def typed(tmp_path: Path) -> Path:
    """The reference bundle with float16 graphs."""
    for module in ("tensorrt_rtx", "polygraphy"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'msdm[rtx]'")
    if not reference_bundle().exists():
        pytest.skip("the reference bundle is not in this checkout")
    add_precision(reference_bundle(), "fp16", out=tmp_path / "reference")
    return tmp_path / "reference"


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_the_reference_denoiser_is_quantised_and_builds(typed: Path, pack_path: Path, tmp_path: Path) -> None:
    for to, target in TARGETS.items():
        settings = QuantizeSettings(typed, to, pack_path, tmp_path / to, windows=1, size_px=32, steps=2, batch=1)
        details = quantize(settings).graphs[DENOISER].variants[to].details
        assert details["share_of_matrix_work"] > 0.8
        assert {"first", "last"} <= {entry["rule"] for entry in details["kept"]}
        rows = build(BuildRequest(typed, "tensorrt-rtx", (target,), ("32:1",), to))
        bundle = Bundle.open(typed)
        assert {row.spec.graph for row in rows} == set(bundle.manifest.graphs)
        assert all(len(bundle.plan_bytes(row.name)) == row.spec.size for row in rows)
        layers = next(row.spec for row in rows if row.spec.graph == DENOISER).build["layers"]
        # A DEQUANTIZE for each weight and for each quantised input, which several nodes may share.
        nodes, inputs = len(details["quantized"]), layers["QUANTIZE"][to.upper()]
        assert layers["QUANTIZE"] == {to.upper(): inputs}
        assert inputs <= nodes
        assert sum(layers["DEQUANTIZE"].values()) == nodes + inputs

"""A bundle whose denoiser has what is quantised and what is kept, and an input that follows the noise level."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from msdm_calibration.quantize.settings import QuantizeSettings
from msdm_engine.bundle.manifest import FileEntry, Manifest
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER

CHANNELS = 16
#: Of the second convolution's input: one channel is this much larger than the others.
OUTLIER = 64.0


def nodes() -> list[onnx.NodeProto]:
    """first -> block (conv1, times sigma, conv2, back to its size) -> last, tanh, and the linear update."""
    around = [1, 1, 1, 1]
    return [
        helper.make_node("Split", ["row"], ["sigma", "c0", "c1", "c2", "c3"], "split", axis=0, num_outputs=5),
        helper.make_node("Conv", ["state", "model.enter.weight"], ["entered"], "conv_first"),
        helper.make_node("Tanh", ["entered"], ["bounded"], "bound"),
        helper.make_node(
            "Conv",
            ["bounded", "model.block.0.conv1.weight", "model.block.0.conv1.bias"],
            ["middle"],
            "conv_outlier",
            pads=around,
        ),
        helper.make_node("Mul", ["middle", "sigma"], ["sized"], "size"),
        helper.make_node("Conv", ["sized", "model.block.0.conv2.weight"], ["mixed"], "conv_sized", pads=around),
        helper.make_node("Div", ["mixed", "sigma"], ["unsized"], "unsize"),
        helper.make_node("Add", ["unsized", "bounded"], ["added"], "add"),
        helper.make_node("Conv", ["added", "model.leave.weight"], ["left"], "conv_last"),
        helper.make_node("Tanh", ["left"], ["denoised"], "tanh"),
        *(
            helper.make_node("Mul", [f"c{i}", part], [f"part{i}"], f"mul_{i}")
            for i, part in enumerate(("state", "denoised", "denoised_prev", "noise"))
        ),
        helper.make_node("Sum", [f"part{i}" for i in range(4)], ["state_next"], "sum"),
    ]


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)

    def drawn(outputs: int, inputs: int, side: int) -> np.ndarray:
        values = rng.standard_normal((outputs, inputs, side, side)) / np.sqrt(inputs * side**2)
        return values.astype(np.float32)

    enter, conv1 = drawn(CHANNELS, 6, 1), drawn(CHANNELS, CHANNELS, 3)
    # A channel that tanh leaves 64 times as large as the others, whose weights are as much smaller.
    enter[1:] /= OUTLIER
    conv1[:, 0] /= OUTLIER
    return {
        "model.enter.weight": enter,
        "model.block.0.conv1.weight": conv1,
        "model.block.0.conv1.bias": np.full(CHANNELS, 0.01, np.float32),
        "model.block.0.conv2.weight": drawn(CHANNELS, CHANNELS, 3),
        "model.leave.weight": drawn(6, CHANNELS, 1),
    }


def denoiser(bundle: Bundle) -> bytes:
    spec = bundle.manifest.graphs[DENOISER]
    inputs, outputs = (
        [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, list(t.shape)) for t in side]
        for side in (spec.inputs, spec.outputs)
    )
    constants = [numpy_helper.from_array(values, name) for name, values in weights().items()]
    graph = helper.make_graph(nodes(), DENOISER, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture
def folder(make_bundle: Callable[..., Path]) -> Path:
    """The bundle, in a folder of its own."""
    made = make_bundle("quantizable")
    data = denoiser(Bundle.open(made))
    manifest = Manifest.from_json((made / "manifest.json").read_text())
    entry = FileEntry(len(data), hashlib.sha256(data).hexdigest())
    changed = replace(manifest, files=manifest.files | {"denoiser.onnx": entry})
    (made / "denoiser.onnx").write_bytes(data)
    (made / "manifest.json").write_text(changed.to_json())
    return made


@pytest.fixture
def settings(folder: Path, pack_path: Path, tmp_path: Path) -> QuantizeSettings:
    """Four windows of 32 px, six steps, two at once."""
    return QuantizeSettings(folder, "int8", pack_path, tmp_path / "state", windows=4, size_px=32, steps=6)

"""Checkpoint -> bundle, with the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from msdm_engine import Bundle, Engine, Metadata, PairRequest
from msdm_engine.contract import CONDITIONER, DENOISER, DENOISER_INPUTS, TEXT_ENCODER
from msdm_engine.errors import InputError, OutputError
from msdm_export.bundle_writer import export_bundle
from msdm_export.cli import main
from msdm_export.onnx_export import HALF_STORAGE_MIN_VALUES, round_to_half
from msdm_train.training.checkpoint import load_model, read_info
from msdm_train.training.fit import FitConfig, fit
from msdm_train.training.from_bundle import read_bundle

GRAPHS = (TEXT_ENCODER, CONDITIONER, DENOISER)

#: Float32 rounding (6e-8) through some twenty layers, times outputs of up to about 200 (state at sigma 40).
PARITY = 1e-4


def test_the_manifest_lists_graphs_tensors_and_provenance(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert set(GRAPHS) <= set(manifest.graphs)
    names = [tensor.name for tensor in manifest.graphs[DENOISER].inputs]
    assert names[: len(DENOISER_INPUTS)] == list(DENOISER_INPUTS)
    # Everything that the conditioner gives out is what the denoiser takes in, under the same names.
    assert names[len(DENOISER_INPUTS) :] == [tensor.name for tensor in manifest.graphs[CONDITIONER].outputs]
    assert manifest.data["licence"] == "CC0-1.0"
    assert manifest.data["trained_on_fields"] == ["field-train"]
    assert manifest.presets["lilac-columnar-small"].tags["architecture"] == "columnar"


@pytest.mark.parametrize("graph", GRAPHS)
def test_parity_was_measured_on_each_output(bundle: Bundle, graph: str) -> None:
    spec = bundle.manifest.graphs[graph]
    assert set(spec.parity["outputs"]) == {tensor.name for tensor in spec.outputs}
    assert max(spec.parity["outputs"].values()) < PARITY
    assert spec.parity["inputs"] == "masks of drawn (val)"


@pytest.mark.parametrize("graph", GRAPHS)
def test_large_weights_are_stored_in_half_and_the_arithmetic_is_float32(bundle: Bundle, graph: str) -> None:
    model = onnx.load_from_string(bundle.graphs[graph])
    for initializer in model.graph.initializer:
        if initializer.data_type == TensorProto.FLOAT:
            assert np.prod(initializer.dims) < HALF_STORAGE_MIN_VALUES
    kinds = {node.op_type for node in model.graph.node if TensorProto.FLOAT16 in _types(model, node)}
    assert kinds <= {"Cast"}


def _types(model: onnx.ModelProto, node: onnx.NodeProto) -> set[int]:
    halves = {i.name for i in model.graph.initializer if i.data_type == TensorProto.FLOAT16}
    return {TensorProto.FLOAT16} if halves & set(node.input) else set()


def test_no_path_of_this_machine_is_in_a_graph(bundle: Bundle) -> None:
    root = str(Path(__file__).resolve().parents[2]).encode()
    for graph in bundle.graphs.values():
        assert root not in graph
        assert b"site-packages" not in graph


def test_an_opened_checkpoint_has_the_weights_of_the_graph(bundle: Bundle, checkpoint: Path) -> None:
    model, _ = load_model(checkpoint)
    round_to_half(model)
    graph = onnx.load_from_string(bundle.graphs[DENOISER])
    stored = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}
    weight = model.unet.enter.weight.detach().numpy()
    assert any(array.shape == weight.shape and np.array_equal(array, weight) for array in stored.values())


def test_training_goes_on_from_the_bundle_alone(
    bundle: Bundle, checkpoint: Path, pack_path: Path, tmp_path: Path
) -> None:
    model, info = load_model(checkpoint)
    round_to_half(model)
    described, weights, tokenizer = read_bundle(bundle.folder)
    assert described.model == info.model
    assert tokenizer == (checkpoint / "tokenizer.json").read_text()
    for name, value in model.state_dict().items():
        assert torch.equal(weights[name], value), name
    config = FitConfig(steps=2, batch=2, crop_px=32, save_every=2, log_every=1)
    last = fit(pack_path, tmp_path / "run", config, init=bundle.folder)
    assert read_info(last).step == info.step + 2


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80), (50, 70)])
def test_the_engine_runs_the_bundle_at_any_size(bundle: Bundle, height: int, width: int) -> None:
    instances = np.zeros((height, width), np.uint16)
    instances[10:20, 12:30] = 1
    request = PairRequest(0, 1, height, width, instances, metadata=Metadata(description="small nuclei"))
    with Engine.open(bundle, threads=1) as engine:
        (pair,) = engine.sample([request], bundle.manifest.sampling.changed(steps=2, batch=1))
    assert pair.image.shape == (height, width, 3)
    assert np.array_equal(pair.instances, instances)


def test_an_existing_folder_that_is_no_bundle_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(OutputError, match="is not a bundle"):
        export_bundle(checkpoint, tmp_path, name="x")
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["onnx", str(tmp_path), "--out", str(tmp_path / "bundle")])
    assert result.exit_code == InputError.exit_code
    assert "is not a checkpoint" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_format_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    raw = json.loads((checkpoint / "checkpoint.json").read_text())
    (tmp_path / "checkpoint.json").write_text(json.dumps(raw | {"format": 99}))
    with pytest.raises(InputError, match="format 99"):
        load_model(tmp_path)

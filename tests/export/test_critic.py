"""A segmenter as the critic of a bundle: exported with it, added to it, exchanged in it, and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto
from torch import Tensor, nn

import msdm_export.critic
from msdm_engine import Bundle, Engine, PairRequest
from msdm_engine.bundle.folder import entry_of
from msdm_engine.bundle.plan_spec import PlanSpec
from msdm_engine.contract import CRITIC, DENOISER
from msdm_engine.critic import image_from_pictures
from msdm_engine.errors import BundleError, InputError, OutputError
from msdm_export.bundle_writer import add_critic
from msdm_export.cli import main
from msdm_export.critic import export_critic
from msdm_export.onnx_export import HALF_STORAGE_MIN_VALUES, round_to_half
from msdm_train.segmentation.predict import load_segmenter_module


class Threshold(nn.Module):
    """Dark pixels are nuclei; as many maps as asked for."""

    def __init__(self, stride: int = 8, scale: float = 1.0, maps: int = 3) -> None:
        super().__init__()
        self.stride, self.scale, self.maps = stride, scale, maps

    def forward(self, image: Tensor) -> Tensor:
        return self.scale * torch.tanh(-4 * image[:, :1]).expand(-1, self.maps, -1, -1)


@pytest.fixture
def threshold(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the segmenter of any folder is made of."""
    made: dict[str, Any] = {}
    monkeypatch.setattr(
        msdm_export.critic, "load_segmenter_module", lambda folder: (Threshold(**made), {"sha256": folder.name})
    )
    return made


def without_critic(bundle: Bundle, folder: Path) -> Path:
    manifest = bundle.manifest
    file = manifest.graphs[CRITIC].file
    graphs = {name: spec for name, spec in manifest.graphs.items() if name != CRITIC}
    files = {name: entry for name, entry in manifest.files.items() if name != file}
    folder.mkdir()
    for name in files:
        (folder / name).write_bytes(bundle.contents[name])
    (folder / "manifest.json").write_text(replace(manifest, graphs=graphs, files=files, critic=None).to_json())
    return folder


def test_the_graph_is_the_segmenter(bundle: Bundle, segmenter: Path) -> None:
    module, _ = load_segmenter_module(segmenter)
    round_to_half(module)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    with Engine.open(bundle, threads=1) as engine:
        found = engine.backend.run(CRITIC, {"image": image_from_pictures(pictures)})["critic_maps"]
    with torch.no_grad():
        expected = module(torch.from_numpy(image_from_pictures(pictures))).numpy()
    # Float32 rounding (6e-8) through some twenty layers of values near 1.
    assert np.abs(found - expected).max() < 1e-5
    assert expected.std() > 0.01  # else anything would be near it


def test_the_manifest_says_where_it_comes_from_and_how_exact_it_is(bundle: Bundle, segmenter: Path) -> None:
    _, identity = load_segmenter_module(segmenter)
    critic, parity = bundle.manifest.critic, bundle.manifest.graphs[CRITIC].parity
    assert critic is not None
    assert {key: critic[key] for key in identity} == identity
    assert critic["weights_stored_as"] == "float16" and 0 < critic["largest_relative_rounding"] < 2**-11
    assert set(parity["outputs"]) == {"critic_maps"} and 0 < parity["outputs"]["critic_maps"] < 1e-5
    assert parity["inputs"] == "tiles of drawn (val)"


def test_large_weights_are_stored_in_half(bundle: Bundle) -> None:
    initializers = onnx.load_from_string(bundle.graphs[CRITIC]).graph.initializer
    assert any(initializer.data_type == TensorProto.FLOAT16 for initializer in initializers)
    whole = [i for i in initializers if i.data_type == TensorProto.FLOAT]
    assert all(np.prod(i.dims) < HALF_STORAGE_MIN_VALUES for i in whole)


def test_no_weight_of_the_generator_is_looked_for_in_it(bundle: Bundle) -> None:
    assert CRITIC not in {graph for graph, _, _ in bundle.manifest.model["weights"].values()}


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 70)])
def test_the_engine_scores_pairs_with_it(bundle: Bundle, height: int, width: int) -> None:
    with Engine.open(bundle, threads=1) as engine:
        (pair,) = engine.sample([PairRequest(0, 1, height, width)], bundle.manifest.sampling.changed(steps=1, batch=1))
    assert pair.seen is not None and pair.seen.maps.shape == (3, height, width)
    assert pair.agreement is not None and 0 <= pair.agreement.aji <= pair.agreement.dice <= 1


def test_adding_leaves_everything_else_as_it_was(bundle: Bundle, threshold: dict[str, Any], tmp_path: Path) -> None:
    old = without_critic(bundle, tmp_path / "old")
    before = Bundle.open(old)
    run = ["critic", str(old), "--from", "first", "--out", str(tmp_path / "new")]
    done = CliRunner().invoke(main, run)
    assert done.exit_code == 0, done.output
    assert "critic" in done.output and f"wrote {tmp_path / 'new'}" in done.output
    new = Bundle.open(tmp_path / "new")
    assert Bundle.open(old) == before
    assert {name: new.contents[name] for name in before.contents} == before.contents
    assert set(new.contents) - set(before.contents) == {"critic.onnx"}
    critic = new.manifest.critic
    assert critic is not None and critic["sha256"] == "first"
    assert replace(new.manifest, critic=None, graphs=before.manifest.graphs, files=before.manifest.files) == (
        before.manifest
    )
    assert new.manifest.graphs[CRITIC].parity["inputs"] == "drawn layouts"


def test_a_critic_is_exchanged_in_place(bundle: Bundle, threshold: dict[str, Any], tmp_path: Path) -> None:
    folder = without_critic(bundle, tmp_path / "bundle")
    for scale, name in ((1.0, "first"), (0.5, "second")):
        threshold["scale"] = scale
        add_critic(folder, Path(name), folder)
    found = Bundle.open(folder)
    assert found.manifest.critic is not None and found.manifest.critic["sha256"] == "second"
    with Engine.open(found, threads=1) as engine:
        maps = engine.backend.run(CRITIC, {"image": -np.ones((1, 3, 16, 16), np.float32)})["critic_maps"]
    assert maps == pytest.approx(0.5 * np.tanh(4), abs=1e-6)  # float32
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_plans_of_the_other_graphs_stay_when_the_critic_is_exchanged(
    bundle: Bundle, threshold: dict[str, Any], tmp_path: Path
) -> None:
    folder = without_critic(bundle, tmp_path / "bundle")
    add_critic(folder, Path("first"), folder)
    manifest = Bundle.open(folder).manifest
    plans = {}
    (folder / "plans").mkdir()
    for graph in (DENOISER, CRITIC):
        data, source = graph.encode(), manifest.files[manifest.graphs[graph].file].sha256
        (folder / f"plans/{graph}.plan").write_bytes(data)
        of = (f"plans/{graph}.plan", len(data), entry_of(data).sha256, graph, source, source)
        plans[graph] = PlanSpec(*of, "tensorrt-rtx", "1.7", "sm_89", "float32", {})
    (folder / "manifest.json").write_text(replace(manifest, plans=plans).to_json())
    add_critic(folder, Path("second"), folder)
    found = Bundle.open(folder)
    assert found.manifest.plans == {DENOISER: plans[DENOISER]}
    assert found.plan_bytes(DENOISER) == b"denoiser"
    assert [path.name for path in (folder / "plans").iterdir()] == ["denoiser.plan"]
    (folder / "plans/denoiser.plan").write_bytes(b"denoised")
    with pytest.raises(BundleError, match=r"denoiser\.plan"):
        add_critic(folder, Path("third"), folder)
    assert Bundle.open(folder) == found


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"maps": 2}, r"gives \(2, 2, 16, 24\)"),
        ({"scale": 3.0}, "with values from -2.9"),
        ({"scale": float("nan")}, "with values from nan to nan"),
    ],
)
def test_a_segmenter_that_is_no_critic_is_refused(
    made: dict[str, Any], message: str, bundle: Bundle, threshold: dict[str, Any], tmp_path: Path
) -> None:
    threshold.update(made)
    with pytest.raises(InputError, match=message):
        add_critic(bundle.folder, Path("any"), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_rounded_are_refused(segmenter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msdm_export.critic, "round_to_half", lambda module: 0.0)
    with pytest.raises(InputError, match="cannot be stored in half") as caught:
        export_critic(segmenter, half_storage=True, pack=None)
    assert "--weights float32" in str(caught.value.hint)


def test_a_folder_that_is_no_segmenter_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a segmenter"):
        export_critic(tmp_path, half_storage=True, pack=None)


def test_a_folder_that_is_no_bundle_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(OutputError, match="is not a bundle"):
        add_critic(bundle.folder, Path("any"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]

"""An engine without graphs: a small bundle on disk and a backend in memory that knows the ideal denoiser."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from msdm_engine import Bundle, Engine
from msdm_engine.bundle.manifest import FileEntry, GraphSpec, Manifest, Preset, Sampling, TensorSpec
from msdm_engine.bundle.reader import reference_bundle
from msdm_engine.conditions.colour import Colour, RegionColour
from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.contract import CONDITIONER, CRITIC, DENOISER, TEXT_ENCODER

TEXT_TOKENS = 8
STRIDE = 16

PRESETS = {
    name: Preset(
        f"violet {architecture} nuclei",
        {"architecture": architecture, "nuclear_size": "small"},
        Colour(RegionColour((100.0, 50.0, 190.0), (20.0, 30.0, 10.0)), RegionColour((170.0, 140.0, 200.0), (9.0,) * 3)),
        tiles,
    )
    for name, architecture, tiles in (("lilac-columnar", "columnar", 6), ("lilac-round", "round", 3))
}


def tensors(**shapes: tuple[int | str, ...]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, "int64" if name == "token_ids" else "float32", shape) for name, shape in shapes.items()
    )


def fake_manifest(files: dict[str, bytes]) -> Manifest:
    image = ("batch", 6, f"{STRIDE}*rows", f"{STRIDE}*columns")
    graphs = {
        TEXT_ENCODER: GraphSpec(
            "text_encoder.onnx",
            tensors(token_ids=("samples", TEXT_TOKENS), token_mask=("samples", TEXT_TOKENS)),
            tensors(token_states=("samples", TEXT_TOKENS, 2)),
        ),
        CONDITIONER: GraphSpec(
            "conditioner.onnx",
            tensors(
                maps=("samples", 3, f"{STRIDE}*rows", f"{STRIDE}*columns"),
                maps_present=("samples", 1),
                colour=("samples", 12),
                colour_present=("samples", 2),
                token_states=("samples", TEXT_TOKENS, 2),
                token_mask=("samples", TEXT_TOKENS),
            ),
            tensors(pooled=("samples", 13), map_features_0=("samples", 3, f"{STRIDE}*rows", f"{STRIDE}*columns")),
        ),
        DENOISER: GraphSpec(
            "denoiser.onnx",
            tensors(
                state=image,
                denoised_prev=image,
                noise=image,
                row=(5,),
                guidance=("branches", "batch"),
                pooled=("branches", "batch", 13),
                map_features_0=("branches", "batch", 3, f"{STRIDE}*rows", f"{STRIDE}*columns"),
            ),
            tensors(state_next=image, denoised=image),
        ),
    }
    return Manifest(
        name="fake",
        stride=STRIDE,
        text_tokens=TEXT_TOKENS,
        state_channels=6,
        n_classes=0,
        files={name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
        graphs=graphs,
        presets=PRESETS,
        sampling=Sampling("dpmpp-2m", 3, 0.01, 40.0, 7.0, size_px=64, batch=2),
        model={},
        training={"steps": 0},
        data={"name": "drawn", "licence": "CC0-1.0", "source": "made by a test"},
        tools={"python": "3"},
    )


def tokenizer_json() -> bytes:
    words = ["[PAD]", "[UNK]", "violet", "columnar", "round", "nuclei"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    text: str = tokenizer.to_str()
    return text.encode()


@pytest.fixture
def bundle_folder(tmp_path: Path) -> Path:
    """A whole bundle on disk, whose graphs are no ONNX."""
    files = {f"{graph}.onnx": f"graph {graph}".encode() for graph in (TEXT_ENCODER, CONDITIONER, DENOISER)}
    files["tokenizer.json"] = tokenizer_json()
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "manifest.json").write_text(fake_manifest(files).to_json())
    return folder


@pytest.fixture
def critic_folder(bundle_folder: Path) -> Path:
    """The bundle of ``bundle_folder`` with a critic."""
    data = b"graph critic"
    picture = ("batch", 3, f"{STRIDE}*rows", f"{STRIDE}*columns")
    manifest = Manifest.from_json((bundle_folder / "manifest.json").read_text())
    with_critic = replace(
        manifest,
        files={**manifest.files, "critic.onnx": FileEntry(len(data), hashlib.sha256(data).hexdigest())},
        graphs={
            **manifest.graphs,
            CRITIC: GraphSpec("critic.onnx", tensors(image=picture), tensors(critic_maps=picture)),
        },
        critic={"stride": 16, "architecture": "threshold", "folds": ["train"], "parameters": 0},
    )
    (bundle_folder / "critic.onnx").write_bytes(data)
    (bundle_folder / "manifest.json").write_text(with_critic.to_json())
    return bundle_folder


@pytest.fixture
def edit_manifest(bundle_folder: Path) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """Changes the manifest of ``bundle_folder`` in place, and returns the folder."""

    def edit(change: Callable[[dict[str, Any]], Any]) -> Path:
        path = bundle_folder / "manifest.json"
        raw = json.loads(path.read_text())
        change(raw)
        path.write_text(json.dumps(raw))
        return bundle_folder

    return edit


class FakeBackend:
    """The ideal denoiser of pictures that are one colour in nuclei and one outside.

    D(x) = the requested colours and maps where they are present, else x s^2 / (s^2 + sigma^2), s = 0.5 (the ideal
    denoiser of white noise of that standard deviation). ``poison`` maps (graph, call number from 1) to the row that
    becomes NaN, then and whenever the graph is given the same again, until it is emptied. The critic finds nuclei where
    red is below its middle, one for each connected piece.
    """

    def __init__(self) -> None:
        self.identity = {"backend": "fake", "version": "0", "threads": "1"}
        self.calls: list[tuple[str, dict[str, np.ndarray]]] = []
        self.poison: dict[tuple[str, int], int] = {}
        self._poisoned: list[tuple[str, dict[str, np.ndarray], int]] = []
        self.closed = False

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls.append((graph, inputs))
        runs = {TEXT_ENCODER: self._text, CONDITIONER: self._condition, DENOISER: self._denoise, CRITIC: self._judge}
        outputs = runs[graph](inputs)
        row = self.poison.get((graph, sum(name == graph for name, _ in self.calls)))
        if row is not None:
            self._poisoned.append((graph, inputs, row))
        for name, given, row in self._poisoned if self.poison else ():
            if name != graph or not all(np.array_equal(given[key], inputs[key]) for key in given):
                continue
            for output in list(outputs) if graph == DENOISER else list(outputs)[-1:]:  # x' is made of D
                outputs[output] = outputs[output].copy()
                outputs[output][row].flat[-1] = np.nan
        return outputs

    def close(self) -> None:
        self.closed = True

    @staticmethod
    def _text(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        ids = inputs["token_ids"].astype(np.float32)
        return {"token_states": np.stack([ids, -ids], -1)}

    @staticmethod
    def _condition(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        pooled = np.concatenate([inputs["colour"], inputs["maps_present"]], 1)
        return {"pooled": pooled, "map_features_0": inputs["maps"]}

    @staticmethod
    def _denoise(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        x, row = inputs["state"], inputs["row"]
        pooled, maps = inputs["pooled"], inputs["map_features_0"]
        present = pooled[:, :, 12, None, None, None]
        inside = maps[:, :, :1] > 0
        picture = np.where(inside, pooled[:, :, :3, None, None], pooled[:, :, 6:9, None, None])
        wanted = np.concatenate([picture, maps], 2).astype(np.float32)
        ideal = x * np.float32(0.25 / (0.25 + float(row[0]) ** 2))
        each = np.where(present > 0, wanted, ideal)
        d = (inputs["guidance"][:, :, None, None, None] * each).sum(0)
        x_next = row[1] * x + row[2] * d + row[3] * inputs["denoised_prev"] + row[4] * inputs["noise"]
        return {"state_next": x_next, "denoised": d}

    @staticmethod
    def _judge(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        dark = (inputs["image"][:, 0] < 0).astype(np.uint8)
        pieces = [cv2.connectedComponents(picture, connectivity=4)[1] for picture in dark]
        return {"critic_maps": np.stack([maps_from_instances(labels) for labels in pieces])}


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch at a time unless a test asks for more: tests count a backend's calls and a device's threads."""
    monkeypatch.setattr("msdm_engine.pipeline.parallel.cores", lambda: 1)


@pytest.fixture
def fake_backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def fake_engine(bundle_folder: Path, fake_backend: FakeBackend) -> Iterator[Engine]:
    with Engine(Bundle.open(bundle_folder), fake_backend) as engine:
        yield engine


@pytest.fixture
def critic_engine(critic_folder: Path, fake_backend: FakeBackend) -> Iterator[Engine]:
    with Engine(Bundle.open(critic_folder), fake_backend) as engine:
        yield engine


@pytest.fixture(scope="session")
def reference() -> Bundle:
    """The bundle that ships with msdm, or the one that MSDM_TEST_BUNDLE names."""
    folder = Path(os.environ.get("MSDM_TEST_BUNDLE", reference_bundle()))
    if not folder.exists():
        pytest.skip(
            f"the reference bundle {folder.name} is not in this checkout; MSDM_TEST_BUNDLE=FOLDER names another"
        )
    return Bundle.open(folder)

"""An evaluation without trained networks: a bundle whose backend paints what is asked, stand-ins for both judges."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from msdm_engine.bundle.manifest import FileEntry, GraphSpec, Manifest, Sampling, TensorSpec
from msdm_engine.contract import CONDITIONER, DENOISER, TEXT_ENCODER
from msdm_train.data.pack import write_pack
from msdm_train.data.reader import Field

STRIDE, TOKENS, SIDE_PX = 16, 32, 32
MakePack = Callable[..., Path]


def _tensors(**shapes: tuple[int | str, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(n, "int64" if n == "token_ids" else "float32", shape) for n, shape in shapes.items())


def _graphs() -> dict[str, GraphSpec]:
    picture = (f"{STRIDE}*rows", f"{STRIDE}*columns")
    state = ("batch", 6, *picture)
    text = _tensors(token_ids=("samples", TOKENS), token_mask=("samples", TOKENS))
    states = _tensors(token_states=("samples", TOKENS, 1))
    conditions = _tensors(
        maps=("samples", 3, *picture), maps_present=("samples", 1), colour=("samples", 12),
        colour_present=("samples", 2),
    )  # fmt: skip
    context = _tensors(pooled=("samples", 15), features=("samples", 3, *picture))
    step = _tensors(state=state, denoised_prev=state, noise=state, row=(5,), guidance=("branches", "batch"))
    folded = tuple(replace(t, shape=("branches", "batch", *t.shape[1:])) for t in context)
    return {
        TEXT_ENCODER: GraphSpec("text_encoder.onnx", text, states),
        CONDITIONER: GraphSpec("conditioner.onnx", (*conditions, *states, text[1]), context),
        DENOISER: GraphSpec("denoiser.onnx", (*step, *folded), _tensors(state_next=state, denoised=state)),
    }


@pytest.fixture
def bundle_folder(tmp_path: Path) -> Path:
    """A bundle on disk whose graphs are no ONNX; :func:`painter` runs it."""
    words = ["[PAD]", "[UNK]", "violet", "pink", "nuclei"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    files = {f"{graph}.onnx": graph.encode() for graph in _graphs()}
    files["tokenizer.json"] = tokenizer.to_str().encode()
    manifest = Manifest(
        name="painter",
        stride=STRIDE,
        text_tokens=TOKENS,
        state_channels=6,
        n_classes=0,
        files={name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
        graphs=_graphs(),
        presets={},
        sampling=Sampling("euler", 3, 0.01, 40.0, 7.0, size_px=SIDE_PX, batch=2),
        model={},
        training={"steps": 0},
        data={"name": "elsewhere", "licence": "CC0-1.0", "source": "made by a test"},
        tools={},
    )
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


class Painter:
    """The ideal denoiser of pictures of two flat colours: those asked for, else violet for a text and grey for none.

    Without morphology it invents one square nucleus of 16 px. ``runs`` counts the runs of the denoiser.
    """

    identity = {"backend": "painter", "threads": "1"}  # noqa: RUF012  (never changed)

    def __init__(self) -> None:
        self.runs = 0

    def close(self) -> None:
        """Nothing is held."""

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if graph == TEXT_ENCODER:
            return {"token_states": inputs["token_ids"][..., None].astype(np.float32)}
        if graph == CONDITIONER:
            parts = inputs["colour"], inputs["maps_present"], inputs["colour_present"]
            colour = np.concatenate(parts, 1)
            text = inputs["token_mask"].max(1, keepdims=True)
            unasked = np.concatenate([text * [0.2, -0.2, 0.6], np.zeros((len(text), 3))], 1)
            for region in (0, 1):
                absent = inputs["colour_present"][:, region] == 0
                colour[absent, 6 * region : 6 * region + 6] = unasked[absent] * (1 if region else 0.5)
            return {"pooled": colour.astype(np.float32), "features": inputs["maps"]}
        return self._denoise(inputs)

    def _denoise(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.runs += 1
        x, row, pooled, maps = inputs["state"], inputs["row"], inputs["pooled"], inputs["features"].copy()
        invented = np.zeros(maps.shape[2:], np.float32)
        invented[0, 8:24, 8:24] = 1
        invented[1, 8:24, 8:24] = np.linspace(-1, 1, 16)
        invented[2, 8:24, 8:24] = np.linspace(-1, 1, 16)[:, None]
        invented[0] = 2 * invented[0] - 1
        maps[pooled[:, :, 12] == 0] = invented
        inside = maps[:, :, :1] > 0
        picture = np.where(inside, pooled[:, :, :3, None, None], pooled[:, :, 6:9, None, None])
        wanted = np.concatenate([picture, maps], 2).astype(np.float32)
        d = (inputs["guidance"][:, :, None, None, None] * wanted).sum(0)
        x_next = row[1] * x + row[2] * d + row[3] * inputs["denoised_prev"] + row[4] * inputs["noise"]
        return {"state_next": x_next.astype(np.float32), "denoised": d.astype(np.float32)}


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> Painter:
    """Every engine that is opened paints."""
    made = Painter()
    monkeypatch.setattr("msdm_engine.engine.open_backend", lambda *_, **__: made)
    return made


class MeanColour:
    """An encoder: the mean colour of the picture."""

    identity = {"name": "mean colour"}  # noqa: RUF012  (never changed)

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([image.reshape(-1, 3).mean(0) for image in images])


class DarkParts:
    """An evaluator: connected parts whose green is below the picture's mean."""

    identity = {"architecture": "threshold"}  # noqa: RUF012  (never changed)

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = []
        for image in images:
            green = image[..., 1].astype(float)
            _, labels = cv2.connectedComponents((green < green.mean() - 10).astype(np.uint8))
            found.append(labels.astype(np.uint16))
        return found


@pytest.fixture
def embed() -> MeanColour:
    return MeanColour()


@pytest.fixture
def evaluator() -> DarkParts:
    return DarkParts()


class _Fields:
    name, licence, source = "drawn", "CC0-1.0", "made by a test"

    def __init__(self, given: Sequence[Field]) -> None:
        self._given = given

    def fields(self) -> Iterator[Field]:
        yield from self._given


@pytest.fixture
def make_pack(tmp_path: Path) -> MakePack:
    """``make_pack(field, ..., name=)`` -> path of the pack."""

    def make(*fields: Field, name: str = "drawn") -> Path:
        path = tmp_path / f"{name}.safetensors"
        write_pack(_Fields(fields), path)
        return path

    return make

"""A bundle of kilobytes whose denoiser has two convolutions, and a packed data set of drawn nuclei."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from msdm_engine.bundle.manifest import FileEntry, GraphSpec, Manifest, Preset, Sampling, TensorSpec
from msdm_engine.bundle.reader import Bundle
from msdm_engine.conditions.colour import Colour
from msdm_engine.contract import CONDITIONER, CRITIC, DENOISER, TEXT_ENCODER
from msdm_train.data.pack import write_pack
from msdm_train.data.reader import Field, Region

STRIDE, TOKENS = 16, 8
WORDS = ("[PAD]", "[UNK]", "violet", "columnar", "round", "nuclei")
PICTURE = (f"{STRIDE}*rows", f"{STRIDE}*columns")
STATE = ("batch", 6, *PICTURE)
HIDDEN = 8
Nodes = list[onnx.NodeProto]
Constants = dict[str, np.ndarray]


def tensors(**shapes: tuple[int | str, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(n, "int64" if n == "token_ids" else "float32", shape) for n, shape in shapes.items())


SPECS = {
    TEXT_ENCODER: GraphSpec(
        "text_encoder.onnx",
        tensors(token_ids=("samples", TOKENS), token_mask=("samples", TOKENS)),
        tensors(token_states=("samples", TOKENS, 2)),
    ),
    CONDITIONER: GraphSpec(
        "conditioner.onnx",
        tensors(
            maps=("samples", 3, *PICTURE),
            maps_present=("samples", 1),
            colour=("samples", 12),
            colour_present=("samples", 2),
            token_states=("samples", TOKENS, 2),
            token_mask=("samples", TOKENS),
        ),
        tensors(pooled=("samples", 13), map_features_0=("samples", 3, *PICTURE)),
    ),
    DENOISER: GraphSpec(
        "denoiser.onnx",
        tensors(
            state=STATE,
            denoised_prev=STATE,
            noise=STATE,
            row=(5,),
            guidance=("branches", "batch"),
            pooled=("branches", "batch", 13),
            map_features_0=("branches", "batch", 3, *PICTURE),
        ),
        tensors(state_next=STATE, denoised=STATE),
    ),
    CRITIC: GraphSpec(
        "critic.onnx", tensors(image=("batch", 3, *PICTURE)), tensors(critic_maps=("batch", 3, *PICTURE))
    ),
}


def denoiser(first: np.ndarray, second: np.ndarray) -> tuple[Nodes, Constants]:
    """``D = tanh(second * (first * x))``, the linear update, and weights named as the exporter names them."""
    nodes = [
        helper.make_node("Conv", ["state", "model.unet.first.weight"], ["hidden"], "conv_first"),
        helper.make_node("Conv", ["hidden", "model.unet.second.weight"], ["mixed"], "conv_second"),
        helper.make_node("Tanh", ["mixed"], ["denoised"], "tanh"),
        helper.make_node("Split", ["row"], ["sigma", "c0", "c1", "c2", "c3"], "split", axis=0, num_outputs=5),
        *(
            helper.make_node("Mul", [f"c{i}", part], [f"part{i}"], f"mul_{i}")
            for i, part in enumerate(("state", "denoised", "denoised_prev", "noise"))
        ),
        helper.make_node("Sum", [f"part{i}" for i in range(4)], ["state_next"], "sum"),
    ]
    return nodes, {"model.unet.first.weight": first, "model.unet.second.weight": second}


def others() -> dict[str, tuple[Nodes, Constants]]:
    return {
        TEXT_ENCODER: (
            [
                helper.make_node("Cast", ["token_ids"], ["numbers"], "cast", to=TensorProto.FLOAT),
                helper.make_node("Unsqueeze", ["numbers", "axis"], ["column"], "unsqueeze"),
                helper.make_node("Concat", ["column", "column"], ["token_states"], "concat", axis=2),
            ],
            {"axis": np.array([2])},
        ),
        CONDITIONER: (
            [
                helper.make_node("Concat", ["colour", "maps_present"], ["pooled"], "concat", axis=1),
                helper.make_node("Identity", ["maps"], ["map_features_0"], "identity"),
            ],
            {},
        ),
        CRITIC: (
            [
                helper.make_node("ReduceMean", ["image", "channels"], ["grey"], "mean", keepdims=1),
                helper.make_node("Neg", ["grey"], ["foreground"], "neg"),
                helper.make_node("Sub", ["grey", "grey"], ["flat"], "sub"),
                helper.make_node("Concat", ["foreground", "flat", "flat"], ["critic_maps"], "concat", axis=1),
            ],
            {"channels": np.array([1])},
        ),
    }


def serialised(name: str, nodes: Nodes, constants: Constants) -> bytes:
    types = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    inputs, outputs = (
        [helper.make_tensor_value_info(t.name, types[t.dtype], list(t.shape)) for t in side]
        for side in (SPECS[name].inputs, SPECS[name].outputs)
    )
    initializers = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def write_bundle(folder: Path, weight_scale: float = 1.0) -> Path:
    """The bundle; ``weight_scale`` multiplies the first convolution's weight and divides the second's."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((HIDDEN, 6, 1, 1)).astype(np.float32) / 6
    second = rng.standard_normal((6, HIDDEN, 1, 1)).astype(np.float32) / HIDDEN
    graphs = {**others(), DENOISER: denoiser(first * np.float32(weight_scale), second / np.float32(weight_scale))}
    files = {SPECS[name].file: serialised(name, *graphs[name]) for name in SPECS}
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    files["tokenizer.json"] = tokenizer.to_str().encode()
    manifest = Manifest(
        name="tiny",
        stride=STRIDE,
        text_tokens=TOKENS,
        state_channels=6,
        n_classes=0,
        files={name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
        graphs=SPECS,
        presets={"round": Preset("violet round nuclei", {}, Colour(), 1)},
        sampling=Sampling("euler-ancestral", 3, 0.01, 40.0, 7.0, size_px=32, batch=2),
        model={},
        training={"steps": 0},
        data={"name": "drawn", "licence": "CC0-1.0", "source": "made by a test"},
        tools={"python": "3"},
        critic={"stride": STRIDE, "architecture": "darkness"},
    )
    folder.mkdir(parents=True)
    for name, data in {**files, "manifest.json": manifest.to_json().encode()}.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Writes the tiny bundle into a folder of its own: ``make_bundle("name", weight_scale=1.0)``."""
    return lambda name="bundle", weight_scale=1.0: write_bundle(tmp_path / name, weight_scale)


@pytest.fixture
def bundle(make_bundle: Callable[..., Path]) -> Bundle:
    """The tiny bundle, opened."""
    return Bundle.open(make_bundle())


def drawn_field(name: str, split: str, side_px: int = 96, nuclei: bool = True) -> Field:
    """Coloured noise with square nuclei of 12 px, two regions beside each other."""
    rng = np.random.default_rng(len(name))
    instances = np.zeros((side_px, side_px), np.uint16)
    for label in range(1, 1 + (side_px // 24) ** 2 if nuclei else 1):
        y, x = (24 * part + 6 for part in divmod(label - 1, side_px // 24))
        instances[y : y + 12, x : x + 12] = label
    image = rng.integers(100, 220, (side_px, side_px, 3), dtype=np.uint8)
    half = side_px // 2
    regions = (
        Region(0, 0, side_px, half, {}, "violet round nuclei"),
        Region(0, half, side_px, side_px, {}, "violet nuclei"),
    )
    return Field(name, split, image, instances, regions)


class Drawn:
    """A reader of given fields."""

    name, licence, source = "drawn", "CC0-1.0", "made by a test"

    def __init__(self, *fields: Field) -> None:
        self._fields = fields

    def fields(self) -> Iterator[Field]:
        """As given."""
        yield from self._fields


@pytest.fixture
def make_pack(tmp_path: Path) -> Callable[..., Path]:
    """Packs fields with the code that `msdm-train prepare` runs: the file is where the stages meet."""

    def make(*fields: Field, name: str = "pack") -> Path:
        path = tmp_path / f"{name}.safetensors"
        write_pack(Drawn(*fields), path)
        return path

    return make


@pytest.fixture
def field() -> Callable[..., Field]:
    """``field("name", "train", side_px=96, nuclei=True)``."""
    return drawn_field


@pytest.fixture
def pack_path(make_pack: Callable[..., Path]) -> Path:
    """Two fields of train, one of val, one of test."""
    return make_pack(*(drawn_field(name, name.split("-")[0]) for name in ("train-a", "train-b", "val-a", "test-a")))

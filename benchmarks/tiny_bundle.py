"""A bundle of a few kilobytes whose graphs do what the contract says, and nothing worth looking at.

Everything of the engine runs on it within milliseconds: reading, verifying, loading into ONNX Runtime, sampling.
``python -m benchmarks.tiny_bundle FOLDER`` writes it into a new folder.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from onnx import TensorProto, checker, helper
from tokenizers import Tokenizer, models, pre_tokenizers

from msdm_engine.bundle.manifest import FileEntry, GraphSpec, Manifest, Preset, Sampling, TensorSpec
from msdm_engine.conditions.colour import Colour, RegionColour
from msdm_engine.contract import CONDITIONER, CRITIC, DENOISER, TEXT_ENCODER

STRIDE, TOKENS, WIDTH = 16, 8, 2
WORDS = ("[PAD]", "[UNK]", "violet", "columnar", "round", "nuclei")
_PICTURE = (f"{STRIDE}*rows", f"{STRIDE}*columns")


def _tensors(**shapes: tuple[int | str, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(n, "int64" if n == "token_ids" else "float32", shape) for n, shape in shapes.items())


def _specs() -> dict[str, GraphSpec]:
    state = ("batch", 6, *_PICTURE)
    context = {"pooled": ("samples", 13), "map_features_0": ("samples", 3, *_PICTURE)}
    folded = {name: ("branches", "batch", *shape[1:]) for name, shape in context.items()}
    text = _tensors(token_ids=("samples", TOKENS), token_mask=("samples", TOKENS))
    conditions = _tensors(
        maps=("samples", 3, *_PICTURE),
        maps_present=("samples", 1),
        colour=("samples", 12),
        colour_present=("samples", 2),
        token_states=("samples", TOKENS, WIDTH),
        token_mask=("samples", TOKENS),
    )
    step = _tensors(state=state, denoised_prev=state, noise=state, row=(5,), guidance=("branches", "batch"), **folded)
    return {
        TEXT_ENCODER: GraphSpec("text_encoder.onnx", text, _tensors(token_states=("samples", TOKENS, WIDTH))),
        CONDITIONER: GraphSpec("conditioner.onnx", conditions, _tensors(**context)),
        DENOISER: GraphSpec("denoiser.onnx", step, _tensors(state_next=state, denoised=state)),
        CRITIC: GraphSpec(
            "critic.onnx",
            _tensors(image=("batch", 3, *_PICTURE)),
            _tensors(critic_maps=("batch", 3, *_PICTURE)),
        ),
    }


def _graph(name: str, spec: GraphSpec) -> bytes:
    nodes, constants = [], []
    if name == TEXT_ENCODER:
        constants.append(helper.make_tensor("axis", TensorProto.INT64, [1], [2]))
        nodes.append(helper.make_node("Cast", ["token_ids"], ["numbers"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Unsqueeze", ["numbers", "axis"], ["column"]))
        nodes.append(helper.make_node("Concat", ["column", "column"], ["token_states"], axis=2))
    elif name == CONDITIONER:
        nodes.append(helper.make_node("Concat", ["colour", "maps_present"], ["pooled"], axis=1))
        nodes.append(helper.make_node("Identity", ["maps"], ["map_features_0"]))
    elif name == CRITIC:  # dark pixels are nuclei, whose maps are flat
        constants.append(helper.make_tensor("channels", TensorProto.INT64, [1], [1]))
        nodes.append(helper.make_node("ReduceMean", ["image", "channels"], ["grey"], keepdims=1))
        nodes.append(helper.make_node("Neg", ["grey"], ["foreground"]))
        nodes.append(helper.make_node("Sub", ["grey", "grey"], ["flat"]))
        nodes.append(helper.make_node("Concat", ["foreground", "flat", "flat"], ["critic_maps"], axis=1))
    else:  # D = tanh(x), x' = c_x x + c_d D + c_prev D_prev + c_noise z
        nodes.append(helper.make_node("Tanh", ["state"], ["denoised"]))
        nodes.append(helper.make_node("Split", ["row"], ["sigma", "c0", "c1", "c2", "c3"], axis=0, num_outputs=5))
        for i, part in enumerate(("state", "denoised", "denoised_prev", "noise")):
            nodes.append(helper.make_node("Mul", [f"c{i}", part], [f"part{i}"]))
        nodes.append(helper.make_node("Sum", [f"part{i}" for i in range(4)], ["state_next"]))
    types = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    inputs, outputs = (
        [helper.make_tensor_value_info(t.name, types[t.dtype], list(t.shape)) for t in side]
        for side in (spec.inputs, spec.outputs)
    )
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def tiny_bundle() -> dict[str, bytes]:
    """The files of the bundle by name, ``manifest.json`` among them."""
    specs = _specs()
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    files = {spec.file: _graph(name, spec) for name, spec in specs.items()}
    files["tokenizer.json"] = tokenizer.to_str().encode()
    region = RegionColour((100.0, 50.0, 190.0), (20.0, 30.0, 10.0))
    manifest = Manifest(
        name="tiny",
        stride=STRIDE,
        text_tokens=TOKENS,
        state_channels=6,
        n_classes=0,
        files={name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
        graphs=specs,
        presets={
            "lilac-round": Preset("violet round nuclei", {"architecture": "round"}, Colour(region, region), 3),
            "lilac-columnar": Preset("violet columnar nuclei", {"nuclear_size": "small"}, Colour(region), 1),
        },
        sampling=Sampling("dpmpp-2m", 3, 0.01, 40.0, 7.0, size_px=64, batch=2),
        model={"channels": [1, 2, 3]},
        training={"steps": 0},
        data={"name": "drawn", "licence": "CC0-1.0", "source": "made by a benchmark"},
        tools={"python": "3"},
        critic={"stride": STRIDE, "architecture": "darkness"},
    )
    return {"manifest.json": manifest.to_json().encode(), **files}


def write_tiny_bundle(folder: Path) -> Path:
    """Writes the bundle into a new folder and returns it."""
    folder.mkdir(parents=True)
    for name, data in tiny_bundle().items():
        (folder / name).write_bytes(data)
    return folder


if __name__ == "__main__":
    write_tiny_bundle(Path(sys.argv[1]))

"""A bundle of three graphs of a few nodes each, in float32 and in float16, that TensorRT builds in moments."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest

from msdm_engine.bundle.manifest import DEFAULT_SAMPLING, FileEntry, GraphSpec, Manifest, TensorSpec, Variant
from msdm_engine.bundle.reader import TOKENIZER
from msdm_engine.contract import CONDITIONER, DENOISER, TEXT_ENCODER

STRIDE = 16
IMAGE = ("batch", 6, "16*rows", "16*columns")

#: Graph -> its inputs and outputs, as the manifest lists them.
TENSORS: dict[str, tuple[dict[str, tuple[Any, ...]], dict[str, tuple[Any, ...]]]] = {
    TEXT_ENCODER: (
        {"token_ids": ("samples", 4), "token_mask": ("samples", 4)},
        {"token_states": ("samples", 4, 2)},
    ),
    CONDITIONER: (
        {
            "maps": ("samples", 3, "16*rows", "16*columns"),
            "maps_present": ("samples", 1),
            "colour": ("samples", 12),
            "colour_present": ("samples", 2),
            "token_states": ("samples", 4, 2),
            "token_mask": ("samples", 4),
        },
        {"pooled": ("samples", 8)},
    ),
    DENOISER: (
        {
            "state": IMAGE,
            "denoised_prev": IMAGE,
            "noise": IMAGE,
            "row": (5,),
            "guidance": ("branches", "batch"),
            "pooled": ("branches", "batch", 8),
        },
        {"state_next": IMAGE, "denoised": IMAGE},
    ),
}

HEADER = '<ir_version: 10, opset_import: ["" : 20]>'

#: ``{half}`` is what matrix work runs in: 1 float32, 10 float16. Sizes are powers of two, so every value is exact.
TEXT_ENCODER_BODY = """
text_encoder (int64[N,4] token_ids, float[N,4] token_mask) => (float[N,4,2] token_states)
<float[1,2] w = {{0.5, -0.25}}, int64[1] last = {{2}}> {{
  ids = Cast<to={half}>(token_ids)
  column = Unsqueeze(ids, last)
  weight = Cast<to={half}>(w)
  [matrix] product = MatMul(column, weight)
  token_states = Cast<to=1>(product)
}}"""

CONDITIONER_BODY = """
conditioner (float[N,3,H,W] maps, float[N,1] maps_present, float[N,12] colour, float[N,2] colour_present,
             float[N,4,2] token_states, float[N,4] token_mask) => (float[N,8] pooled)
<float[12,8] w = {{{weights}}}> {{
  c = Cast<to={half}>(colour)
  weight = Cast<to={half}>(w)
  product = MatMul(c, weight)
  pooled = Cast<to=1>(product)
}}"""

DENOISER_BODY = """
denoiser (float[B,6,H,W] state, float[B,6,H,W] denoised_prev, float[B,6,H,W] noise, float[5] row,
          float[G,B] guidance, float[G,B,8] pooled) => (float[B,6,H,W] state_next, float[B,6,H,W] denoised)
<float[6,6,1,1] w = {{{weights}}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] three = {{3}},
 int64[1] four = {{4}}> {{
  x = Cast<to={half}>(state)
  weight = Cast<to={half}>(w)
  [matrix] product = Conv(x, weight)
  denoised = Cast<to=1>(product)
  c_x = Gather<axis=0>(row, one)
  c_d = Gather<axis=0>(row, two)
  c_prev = Gather<axis=0>(row, three)
  c_noise = Gather<axis=0>(row, four)
  a = Mul(c_x, state)
  b = Mul(c_d, denoised)
  c = Mul(c_prev, denoised_prev)
  d = Mul(c_noise, noise)
  ab = Add(a, b)
  abc = Add(ab, c)
  state_next = Add(abc, d)
}}"""

BODIES = {TEXT_ENCODER: TEXT_ENCODER_BODY, CONDITIONER: CONDITIONER_BODY, DENOISER: DENOISER_BODY}
COUNTS = {CONDITIONER: 96, DENOISER: 36}


def graph_text(graph: str, half: bool) -> str:
    """The graph in ONNX's text form, with its matrix work in float16 or float32."""
    weights = ", ".join(["0.5"] * COUNTS.get(graph, 0))
    return HEADER + BODIES[graph].format(half=10 if half else 1, weights=weights)


def onnx_bytes(text: str) -> bytes:
    data: bytes = onnx.parser.parse_model(text).SerializeToString()
    return data


def tensor_specs(shapes: dict[str, tuple[Any, ...]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(n, "int64" if n == "token_ids" else "float32", s) for n, s in shapes.items())


Write = Callable[..., Path]


@pytest.fixture
def write_bundle(tmp_path: Path) -> Write:
    """Writes a bundle; ``change`` maps (graph, text, half) to the text that is used instead."""

    def write(change: Callable[[str, str, bool], str] = lambda _, text, __: text, name: str = "bundle") -> Path:
        files: dict[str, bytes] = {TOKENIZER: b"{}"}
        graphs = {}
        for graph, (inputs, outputs) in TENSORS.items():
            whole, half = (onnx_bytes(change(graph, graph_text(graph, half), half)) for half in (False, True))
            files |= {f"{graph}.onnx": whole, f"{graph}.fp16.onnx": half}
            sides = tensor_specs(inputs), tensor_specs(outputs)
            variant = Variant(f"{graph}.fp16.onnx", *sides, hashlib.sha256(whole).hexdigest(), opset=20)
            graphs[graph] = GraphSpec(f"{graph}.onnx", *sides, variants={"fp16": variant})
        manifest = Manifest(
            name="micro",
            stride=STRIDE,
            text_tokens=4,
            state_channels=6,
            n_classes=0,
            files={file: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for file, data in files.items()},
            graphs=graphs,
            presets={},
            sampling=DEFAULT_SAMPLING,
            model={},
            training={},
            data={"name": "drawn", "licence": "CC0-1.0", "source": "made by a test"},
            tools={},
        )
        folder = tmp_path / name
        folder.mkdir()
        for file, data in files.items():
            (folder / file).write_bytes(data)
        (folder / "manifest.json").write_text(manifest.to_json())
        return folder

    return write


@pytest.fixture
def micro(write_bundle: Write) -> Path:
    """The bundle as it should be."""
    return write_bundle()


@pytest.fixture(scope="session")
def rtx() -> Any:
    """TensorRT for RTX, or a skip with the reason."""
    for module in ("tensorrt_rtx", "polygraphy"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'msdm[rtx]'")
    from msdm_export.plans.toolchain import open_toolchain

    return open_toolchain("tensorrt-rtx")

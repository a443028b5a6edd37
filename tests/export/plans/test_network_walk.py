"""The walk refuses each departure from the types asked for, and names the layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msdm_engine.bundle.manifest import TensorSpec
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER, TEXT_ENCODER
from msdm_engine.errors import BackendError
from msdm_export.plans.builder import parse
from msdm_export.plans.network_walk import counts, layers_of, walk
from msdm_export.plans.profiles import input_shapes
from msdm_export.plans.source import Source, fixed_shapes, source_of

SHAPE = {"batch": 2, "branches": 1, "rows": 2, "columns": 2, "samples": 1}


def walked(rtx: Any, source: Source, shape: dict[str, int] = SHAPE) -> Any:
    shapes = input_shapes(source.graph, source.spec, shape)
    _, network, parser = parse(rtx, source, fixed_shapes(source.data, shapes))
    layers = walk(network, source, shapes)
    del parser
    return layers


@pytest.mark.parametrize(("precision", "dtype"), [("float32", "FLOAT"), ("fp16", "HALF")])
def test_a_graph_as_it_should_be(micro: Path, rtx: Any, precision: str, dtype: str) -> None:
    bundle = Bundle.open(micro)
    found = counts(walked(rtx, source_of(bundle, DENOISER, precision)))
    assert found["CONVOLUTION"] == {dtype: 1}
    # c_x x + c_d D + c_prev D_prev + c_noise z: four products, three sums, all float32
    assert found["ELEMENTWISE"] == {"FLOAT": 7}
    assert counts(walked(rtx, source_of(bundle, TEXT_ENCODER, precision)))["MATRIX_MULTIPLY"] == {dtype: 1}


#: Change to the float16 denoiser -> what the walk says.
DEPARTURES: dict[str, tuple[Any, ...]] = {
    "matrix work in float32": (
        ("Cast<to=10>(state)", "Identity(state)"),
        ("Cast<to=10>(w)", "Identity(w)"),
        r"layer 'matrix' \(CONVOLUTION\) runs in FLOAT",
    ),
    "update in half": (
        ("ab = Add(a, b)", "ah = Cast<to=10>(a) bh = Cast<to=10>(b) sum = Add(ah, bh) ab = Cast<to=1>(sum)"),
        r"of the solver's update runs in HALF, not in FLOAT",
    ),
    "statistics in half": (
        (
            "denoised = Cast<to=1>(product)",
            "mean = ReduceMean(product) y = Sub(product, mean) denoised = Cast<to=1>(y)",
        ),
        r"\(REDUCE\) takes its statistics in HALF, not in FLOAT",
    ),
    "the noise is left out": (
        ("state_next = Add(abc, d)", "state_next = Add(abc, c)"),
        r"'noise' does not reach 'state_next'",
    ),
}


@pytest.mark.parametrize("departure", DEPARTURES)
def test_a_departure_is_refused_by_name(departure: str, write_bundle: Callable[..., Path], rtx: Any) -> None:
    *edits, said = DEPARTURES[departure]

    def change(graph: str, text: str, half: bool) -> str:
        for old, new in edits if graph == DENOISER and half else ():
            assert old in text
            text = text.replace(old, new)
        return text

    bundle = Bundle.open(write_bundle(change))
    with pytest.raises(BackendError, match=said) as caught:
        walked(rtx, source_of(bundle, DENOISER, "fp16"))
    assert "msdm-export precision" in str(caught.value)


def test_nodes_kept_in_float32_for_a_reason_are_left_out(write_bundle: Callable[..., Path], rtx: Any) -> None:
    def change(graph: str, text: str, half: bool) -> str:
        return text.replace("Cast<to=10>(state)", "Identity(state)").replace("Cast<to=10>(w)", "Identity(w)")

    source = source_of(Bundle.open(write_bundle(change)), DENOISER, "fp16")
    kept = Source(**{**vars(source), "kept": {"matrix": "its output reaches 1e5"}})
    assert counts(walked(rtx, kept))["CONVOLUTION"] == {"FLOAT": 1}


def test_statistics_of_a_norm_are_float32_by_its_stash_type(write_bundle: Callable[..., Path], rtx: Any) -> None:
    def change(graph: str, text: str, half: bool) -> str:
        new = "n = LayerNormalization<stash_type=10>(product, scale) token_states = Cast<to=1>(n)"
        text = text.replace("token_states = Cast<to=1>(product)", new if half else new.replace("=10", "=1"))
        return text.replace("[matrix]", f"scale = Cast<to={10 if half else 1}>(gain) [matrix]").replace(
            "int64[1] last", "float[2] gain = {1.0, 1.0}, int64[1] last"
        )

    bundle = Bundle.open(write_bundle(lambda g, t, h: change(g, t, h) if g == TEXT_ENCODER else t))
    with pytest.raises(BackendError, match=r"\(LayerNormalization\) takes its statistics in ONNX type 10"):
        walked(rtx, source_of(bundle, TEXT_ENCODER, "fp16"))


def test_tensors_are_those_of_the_manifest_and_the_profile(micro: Path, rtx: Any) -> None:
    source = source_of(Bundle.open(micro), DENOISER, "fp16")
    shapes = input_shapes(DENOISER, source.spec, SHAPE)
    _, network, parser = parse(rtx, source, fixed_shapes(source.data, shapes))
    with pytest.raises(BackendError, match=r"tensor 'state' has the shape \(2, 6, 32, 32\), asked for was \(4, 6"):
        walk(network, source, input_shapes(DENOISER, source.spec, SHAPE | {"batch": 4}))
    half = (TensorSpec("state", "float16", source.spec.inputs[0].shape), *source.spec.inputs[1:])
    other = Source(**{**vars(source), "spec": type(source.spec)(**{**vars(source.spec), "inputs": half})})
    with pytest.raises(BackendError, match="tensor 'state' is FLOAT, the manifest says float16"):
        walk(network, other, shapes)
    fewer = Source(**{**vars(source), "spec": type(source.spec)(**{**vars(source.spec), "inputs": half[1:]})})
    with pytest.raises(BackendError, match="the tensor 'state', which the manifest does not list"):
        walk(network, fewer, shapes)
    assert len(layers_of(network)) == network.num_layers
    del parser

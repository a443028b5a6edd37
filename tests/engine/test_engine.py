"""The engine around a backend in memory: what it asks of the graphs, and what it makes of their answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine import Bundle, Colour, Engine, Metadata, Pair, PairRequest, RegionColour
from msdm_engine.backends import open_backend
from msdm_engine.conditions.decode import instances_from_maps
from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.contract import CONDITIONER, DENOISER, TEXT_ENCODER
from msdm_engine.errors import BackendError, NumericsError, RequestError
from msdm_engine.pipeline.padding import Padding
from msdm_engine.sampling.guidance import Guidance
from msdm_engine.sampling.noise import gaussian

#: Colours that 8 bits hold exactly: value v is (v - 127.5) / 127.5.
INSIDE, OUTSIDE = (100.0, 50.0, 190.0), (170.0, 140.0, 200.0)
COLOUR = Colour(RegionColour(INSIDE, (9.0,) * 3), RegionColour(OUTSIDE, (9.0,) * 3))


def squares(height: int = 64, width: int = 64) -> np.ndarray:
    """Two touching squares, the second cut by the right border, and one at the bottom right corner."""
    instances = np.zeros((height, width), np.uint16)
    instances[8:20, width - 24 : width - 12] = 1
    instances[8:20, width - 12 :] = 2
    instances[height - 9 :, width - 7 :] = 3
    return instances


def asked(index: int = 0, height: int = 64, width: int = 64, seed: int = 5, **changes: Any) -> PairRequest:
    instances = changes.pop("instances", squares(height, width))
    return PairRequest(index, seed, height, width, instances, changes.pop("colour", COLOUR), **changes)


def inputs_of(backend: Any, graph: str) -> list[dict[str, np.ndarray]]:
    return [inputs for name, inputs in backend.calls if name == graph]


# --- what comes out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 70), (16, 17), (33, 128)])
def test_the_picture_has_the_colours_asked_for_on_the_pixels_of_the_mask(
    fake_engine: Engine, height: int, width: int
) -> None:
    instances = squares(64, 64)[:height, :width] if min(height, width) < 24 else squares(height, width)
    (pair,) = fake_engine.sample([asked(height=height, width=width, instances=np.ascontiguousarray(instances))])
    # The backend knows the ideal answer, and the last row of a table gives the denoised estimate itself.
    expected = np.where(instances[..., None] > 0, INSIDE, OUTSIDE).astype(np.uint8)
    assert pair.image.dtype == np.uint8
    assert np.array_equal(pair.image, expected)
    assert pair.instances.dtype == np.uint16
    assert np.array_equal(pair.instances, instances)


def test_values_beyond_the_range_are_clipped(fake_engine: Engine) -> None:
    # Guidance of 2 over "without colour", which is grey (zero), triples the distance from grey.
    (pair,) = fake_engine.sample([asked()], guidance=Guidance(colour=2.0))
    assert pair.image[10, 45].tolist() == [45, 0, 255]  # 3 v - 255 of 100, 50 and 190, within 0 to 255
    assert pair.image[0, 0].tolist() == [255, 165, 255]


def test_an_invented_layout_gives_the_mask_of_its_maps(fake_engine: Engine, fake_backend: Any) -> None:
    (pair,) = fake_engine.sample([asked(instances=None)])
    table = fake_engine.bundle.manifest.sampling.table()
    last = inputs_of(fake_backend, DENOISER)[-1]
    ideal = last["state"][0, 3:] * np.float32(0.25 / (0.25 + np.float32(table[-1, 0]) ** 2))
    assert np.array_equal(pair.instances, instances_from_maps(np.clip(ideal, -1, 1)))
    assert pair.instances.dtype == np.uint16
    assert pair.request.morphology == "invented"


def test_pairs_come_in_the_order_of_their_requests(fake_engine: Engine) -> None:
    sizes = [(64, 64)] * 3 + [(48, 64)] * 2 + [(64, 64)]
    pairs = list(fake_engine.sample([asked(i, *size) for i, size in enumerate(sizes)]))
    assert [pair.request.index for pair in pairs] == list(range(6))
    assert [pair.image.shape[:2] for pair in pairs] == sizes


def test_no_requests_give_no_pairs(fake_engine: Engine, fake_backend: Any) -> None:
    assert list(fake_engine.sample([])) == []
    assert fake_backend.calls == []


def test_pairs_before_an_error_of_the_requests_are_handed_over(fake_engine: Engine) -> None:
    def failing() -> Iterator[PairRequest]:
        yield from (asked(index) for index in range(3))
        raise ZeroDivisionError

    pairs = fake_engine.sample(failing())
    assert [next(pairs).request.index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(pairs)


def test_requests_are_taken_as_they_are_needed(fake_engine: Engine) -> None:
    taken: list[int] = []

    def endless() -> Iterator[PairRequest]:
        for index in range(10**9):
            taken.append(index)
            yield asked(index)

    next(fake_engine.sample(endless()))
    assert taken == [0, 1, 2, 3]  # batches of two: the pair's own, and the one that is prepared meanwhile


# --- batches and noise -----------------------------------------------------------------------------------------


def test_short_batches_are_filled_to_one_shape(fake_engine: Engine, fake_backend: Any) -> None:
    assert len(list(fake_engine.sample([asked(i) for i in range(5)]))) == 5
    assert {call["state"].shape for call in inputs_of(fake_backend, DENOISER)} == {(2, 6, 64, 64)}
    assert {call["maps"].shape for call in inputs_of(fake_backend, CONDITIONER)} == {(2, 3, 64, 64)}
    last = inputs_of(fake_backend, DENOISER)[-1]["state"]
    assert np.array_equal(last[0], last[1])


def test_sizes_do_not_share_a_batch(fake_engine: Engine, fake_backend: Any) -> None:
    list(fake_engine.sample([asked(0), asked(1, 48, 64), asked(2, 48, 64), asked(3)]))
    assert [call["maps"].shape[2:] for call in inputs_of(fake_backend, CONDITIONER)] == [(64, 64), (48, 64)]


def test_noise_is_that_of_seed_and_index(fake_engine: Engine, fake_backend: Any) -> None:
    sampling = fake_engine.bundle.manifest.sampling.changed(solver="euler-ancestral", steps=3)
    list(fake_engine.sample([asked(7, seed=3), asked(2, seed=9)], sampling))
    first, second, last = inputs_of(fake_backend, DENOISER)
    for row, (seed, index) in enumerate(((3, 7), (9, 2))):
        start = np.float32(1) * (40.0 * gaussian(seed, index, 0, 6, 64, 64).astype(np.float64)).astype(np.float32)
        assert np.array_equal(first["state"][row], start)
        assert np.array_equal(first["noise"][row], gaussian(seed, index, 1, 6, 64, 64))
        assert np.array_equal(second["noise"][row], gaussian(seed, index, 2, 6, 64, 64))
    assert not last["noise"].any()


def test_rows_are_those_of_the_table(fake_engine: Engine, fake_backend: Any) -> None:
    sampling = fake_engine.bundle.manifest.sampling.changed(steps=4)
    list(fake_engine.sample([asked()], sampling))
    rows = np.stack([call["row"] for call in inputs_of(fake_backend, DENOISER)])
    assert rows.dtype == np.float32
    assert np.array_equal(rows, sampling.table().astype(np.float32))


# --- conditions ------------------------------------------------------------------------------------------------


def test_the_conditioner_is_given_maps_colour_and_presence(fake_engine: Engine, fake_backend: Any) -> None:
    half = Colour(foreground=COLOUR.foreground)
    list(fake_engine.sample([asked(0), asked(1, instances=None, colour=half)]))
    (call,) = inputs_of(fake_backend, CONDITIONER)
    assert np.array_equal(call["maps"][0], maps_from_instances(squares()))
    assert not call["maps"][1].any()
    assert call["maps_present"].tolist() == [[1], [0]]
    assert call["colour_present"].tolist() == [[1, 1], [1, 0]]
    assert np.array_equal(call["colour"][1], half.features()[0])
    assert {name: value.dtype for name, value in call.items()} == dict.fromkeys(call, np.dtype(np.float32))


def test_a_text_is_encoded_once(fake_engine: Engine, fake_backend: Any) -> None:
    violet, other = Metadata(description="violet nuclei"), Metadata(description="round")
    list(fake_engine.sample([asked(i, metadata=violet if i % 2 else other) for i in range(6)]))
    assert [call["token_ids"][0, :2].tolist() for call in inputs_of(fake_backend, TEXT_ENCODER)] == [[4, 0], [2, 5]]
    call = inputs_of(fake_backend, CONDITIONER)[0]
    assert call["token_mask"][:, :3].tolist() == [[1, 0, 0], [1, 1, 0]]
    assert call["token_states"][1, :2].tolist() == [[2, -2], [5, -5]]


def test_without_metadata_no_token_is_present(fake_engine: Engine, fake_backend: Any) -> None:
    list(fake_engine.sample([asked()]))
    assert not inputs_of(fake_backend, CONDITIONER)[0]["token_mask"].any()


def test_few_texts_are_kept(fake_engine: Engine, fake_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msdm_engine.pipeline.conditions.MAX_TEXTS", 2)
    words = ["violet", "round", "nuclei", "violet", "nuclei"]
    list(fake_engine.sample([asked(i, metadata=Metadata(description=word)) for i, word in enumerate(words)]))
    ids = [int(call["token_ids"][0, 0]) for call in inputs_of(fake_backend, TEXT_ENCODER)]
    assert ids == [2, 4, 5, 2]  # violet went as the oldest, nuclei stayed


def test_a_text_that_is_too_long_is_refused(fake_engine: Engine) -> None:
    with pytest.raises(RequestError, match="9 tokens is too long") as caught:
        next(fake_engine.sample([asked(metadata=Metadata(description="violet " * 9))]))
    assert "at most 8" in str(caught.value.note)


def test_a_text_that_is_no_unicode_is_refused(fake_engine: Engine) -> None:
    with pytest.raises(RequestError, match="is not Unicode"):
        next(fake_engine.sample([asked(metadata=Metadata(description="half \udc80"))]))


def test_guidance_branches_are_folded_in_inside_the_interval_only(fake_engine: Engine, fake_backend: Any) -> None:
    guidance = Guidance(text=0.5, colour=2.0, sigma_low=0.02, sigma_high=10)
    sampling = fake_engine.bundle.manifest.sampling.changed(steps=3)
    list(fake_engine.sample([asked(metadata=Metadata(description="violet"))], sampling, guidance))
    (call,) = inputs_of(fake_backend, CONDITIONER)
    # Branches one after another, each with the whole batch of two.
    assert call["token_mask"][:, 0].tolist() == [1, 1, 0, 0, 1, 1]
    assert call["colour_present"][:, 0].tolist() == [1, 1, 1, 1, 0, 0]
    assert call["maps_present"][:, 0].tolist() == [1] * 6
    weights = [run["guidance"] for run in inputs_of(fake_backend, DENOISER)]
    inside = [bool(0.02 <= sigma <= 10) for sigma in sampling.table()[:, 0]]
    assert inside == [False, True, False]
    assert [weight.shape for weight in weights] == [(1, 2), (3, 2), (1, 2)]
    assert weights[1].tolist() == [[3.5, 3.5], [-0.5, -0.5], [-2, -2]]  # 1 + text + colour, -text, -colour
    assert weights[0].tolist() == [[1, 1]]
    assert [run["pooled"].shape[0] for run in inputs_of(fake_backend, DENOISER)] == [1, 3, 1]


# --- any size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(50, 70), (17, 16), (31, 47), (64, 65)])
def test_growing_moves_no_nucleus_inside_the_picture(height: int, width: int) -> None:
    rng = np.random.default_rng(height * width)
    blocks = rng.integers(0, 9, (-(-height // 6), -(-width // 5))) * 7  # nuclei in pieces, gaps, cut at every border
    instances = np.kron(blocks, np.ones((6, 5), int))[:height, :width].astype(np.uint16)
    padding = Padding.of(height, width, 16)
    grown = padding.grow(instances)
    assert padding.shape == grown.shape == (-(-height // 16) * 16, -(-width // 16) * 16)
    assert np.array_equal(grown[:height, :width], instances)
    # The maps of a nucleus are distances to its centre of mass: equal maps, equal centres.
    assert np.array_equal(maps_from_instances(grown)[:, :height, :width], maps_from_instances(instances))
    assert not set(np.unique(grown[height:])) & set(np.unique(instances)) - {0}
    assert not set(np.unique(grown[:, width:])) & set(np.unique(instances)) - {0}


def test_growing_reflects_the_mask() -> None:
    instances = np.zeros((18, 16), np.uint16)
    instances[15:17, 3:6] = 5
    grown = Padding.of(18, 16, 16).grow(instances)
    assert np.array_equal(grown[19:21] > 0, instances[15:17][::-1] > 0)  # row 18 + k shows row 17 - k
    assert grown[19, 4] == 10


def test_a_multiple_of_the_stride_does_not_grow() -> None:
    padding = Padding.of(48, 64, 16)
    assert padding.shape == (48, 64)
    assert np.array_equal(padding.grow(squares(48, 64)), squares(48, 64))


def test_all_labels_of_16_bits_can_grow() -> None:
    instances = np.full((17, 17), 65535, np.uint16)
    assert np.unique(Padding.of(17, 17, 16).grow(instances)).tolist() == [65535, 131070]


# --- values that are not finite --------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_value_of_the_denoiser_that_is_not_finite_is_named(
    fake_engine: Engine, fake_backend: Any, row: int, step: int
) -> None:
    fake_backend.poison = {(DENOISER, step): row}
    with pytest.raises(NumericsError) as caught:
        list(fake_engine.sample([asked(10, seed=3), asked(11, seed=4)]))
    assert f"graph '{DENOISER}'" in caught.value.what
    assert f"pair {10 + row}, seed {3 + row}, step {step} of 3" in caught.value.what


def test_a_state_that_is_not_finite_is_named_in_its_own_step(fake_engine: Engine, fake_backend: Any) -> None:
    whole, second = fake_backend.run, np.float32(fake_engine.bundle.manifest.sampling.table()[1, 0])

    def run(graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = whole(graph, inputs)
        if graph == DENOISER and inputs["row"][0] == second:
            outputs["state_next"][0, 0, 0, 0] = np.inf
        return outputs

    fake_backend.run = run
    with pytest.raises(NumericsError, match="step 2 of 3"):
        list(fake_engine.sample([asked()]))


@pytest.mark.parametrize("graph", [TEXT_ENCODER, CONDITIONER])
def test_other_graphs_are_named_too(fake_engine: Engine, fake_backend: Any, graph: str) -> None:
    fake_backend.poison = {(graph, 1): 0}
    with pytest.raises(NumericsError, match=f"graph '{graph}'.*pair 4, seed 5, before the first step"):
        list(fake_engine.sample([asked(4, metadata=Metadata(description="violet"))]))


def test_pairs_before_a_broken_batch_are_complete(fake_engine: Engine, fake_backend: Any) -> None:
    fake_backend.poison = {(DENOISER, 5): 0}  # the second batch, step 2
    pairs: list[Pair] = []
    with pytest.raises(NumericsError, match="pair 2, seed 5, step 2 of 3"):
        pairs.extend(fake_engine.sample([asked(i) for i in range(4)]))
    assert [pair.request.index for pair in pairs] in ([0, 1], [])  # list.extend may take what came before the error
    fake_backend.poison = {}
    good = fake_engine.sample([asked(i) for i in range(2)])
    assert len(list(good)) == 2


# --- lifecycle and backends ------------------------------------------------------------------------------------


def test_the_backend_is_closed_on_the_way_out(bundle_folder: Path, fake_backend: Any) -> None:
    with pytest.raises(ZeroDivisionError), Engine(Bundle.open(bundle_folder), fake_backend):
        raise ZeroDivisionError
    assert fake_backend.closed


def test_an_unknown_backend_names_the_nearest(bundle_folder: Path) -> None:
    with pytest.raises(RequestError, match="'onnxruntim'") as caught:
        Engine.open(bundle_folder, backend="onnxruntim")
    assert "did you mean 'onnxruntime'" in str(caught.value.note)


def test_a_missing_runtime_names_the_command_that_installs_it(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # import then raises ImportError
    with pytest.raises(BackendError, match="'onnxruntime' is not installed") as caught:
        Engine.open(bundle_folder)
    assert "pip install 'msdm[cpu]'" in str(caught.value.hint)


def test_a_graph_that_is_no_onnx_is_named(bundle_folder: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra cpu or gpu")
    with pytest.raises(BackendError, match="the graph 'text_encoder' cannot be loaded: it is no ONNX model"):
        Engine.open(bundle_folder)


def test_a_graph_that_the_runtime_cannot_load_is_named(bundle_folder: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra cpu or gpu")
    bundle = Bundle.open(bundle_folder)
    bundle.contents["text_encoder.onnx"] = b""  # a model without a graph
    with pytest.raises(BackendError, match="the graph 'text_encoder'"):
        Engine.open(bundle)


@pytest.mark.parametrize("threads", [-1, 1025])
def test_threads_out_of_range_are_refused(bundle_folder: Path, threads: int) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra cpu or gpu")
    with pytest.raises(RequestError, match=f"{threads} threads"):
        open_backend("onnxruntime", Bundle.open(bundle_folder), threads=threads)


def test_an_opened_bundle_is_taken_as_it_is(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = replace(Bundle.open(bundle_folder), folder=Path("gone"))
    seen: list[Bundle] = []

    def fake_open(name: str, bundle: Bundle, **_: Any) -> Any:
        seen.append(bundle)

    monkeypatch.setattr("msdm_engine.engine.open_backend", fake_open)
    assert Engine.open(opened).bundle is opened
    assert seen == [opened]

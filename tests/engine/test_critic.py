"""The critic: what it is shown, what its agreement is, and what a bundle may say of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from msdm_engine import Bundle, Colour, Engine, PairRequest, RegionColour
from msdm_engine.bundle.describe import critic_text
from msdm_engine.cli import main
from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.contract import CRITIC
from msdm_engine.critic import Agreement, agreement_of, image_from_pictures
from msdm_engine.errors import BackendError, BundleError, InputError, NumericsError

#: The critic of the fake backend finds what is dark in red: 100 is, 170 is not.
COLOUR = Colour(RegionColour((100.0, 50.0, 190.0), (9.0,) * 3), RegionColour((170.0, 140.0, 200.0), (9.0,) * 3))


def square(top: int, left: int, side: int = 12, height: int = 64, width: int = 64) -> np.ndarray:
    instances = np.zeros((height, width), np.uint16)
    instances[top : top + side, left : left + side] = 1
    return instances


def asked(instances: np.ndarray, index: int = 0) -> PairRequest:
    height, width = instances.shape
    return PairRequest(index, 5, height, width, instances, COLOUR)


def calls(backend: Any) -> list[np.ndarray]:
    return [inputs["image"] for graph, inputs in backend.calls if graph == CRITIC]


# --- the number ------------------------------------------------------------------------------------------------


def test_a_shifted_nucleus_agrees_as_far_as_it_overlaps() -> None:
    # 12 x 12 px moved by 3: 9 columns of 12 px in both, 15 in either.
    found = agreement_of(maps_from_instances(square(20, 20)), square(20, 23))
    assert found == Agreement(dice=9 / 12, aji=9 / 15)


def test_joined_nuclei_are_seen_by_aji_and_not_by_dice() -> None:
    one = square(20, 20)
    two = one.copy()
    two[20:32, 26:32] = 2
    # Both halves are served by the one nucleus found: intersection 72 + 72, union 144 + 144.
    assert agreement_of(maps_from_instances(one), two) == Agreement(dice=1.0, aji=0.5)


def test_without_nuclei() -> None:
    nothing = np.zeros((64, 64), np.uint16)
    assert agreement_of(maps_from_instances(nothing), nothing) == Agreement(1.0, 1.0)
    assert agreement_of(maps_from_instances(nothing), square(8, 8)) == Agreement(0.0, 0.0)
    assert agreement_of(maps_from_instances(square(8, 8)), nothing) == Agreement(0.0, 0.0)


def test_maps_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        agreement_of(maps_from_instances(square(8, 8)), square(8, 8, height=60))


def test_a_picture_in_the_range_of_the_contract() -> None:
    picture = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    image = image_from_pictures(picture)
    assert image.dtype == np.float32 and image.shape == (1, 3, 16, 16)
    assert (image.min(), image.max()) == (-1, 1)
    # The engine's own rounding gives the picture back.
    assert np.array_equal(np.rint((image + 1) * 127.5), picture.transpose(0, 3, 1, 2))


# --- in the engine ---------------------------------------------------------------------------------------------


def test_each_pair_is_scored_against_its_own_mask(critic_engine: Engine) -> None:
    empty = np.zeros((64, 64), np.uint16)
    pairs = list(critic_engine.sample([asked(square(8, 8)), asked(empty, 1), asked(square(30, 40), 2)]))
    assert [pair.agreement for pair in pairs] == [Agreement(1.0, 1.0)] * 3


def test_an_invented_layout_is_scored_against_its_decoded_mask(critic_engine: Engine) -> None:
    (pair,) = critic_engine.sample([PairRequest(0, 1, 64, 64)])
    assert pair.seen is not None
    assert pair.agreement == agreement_of(pair.seen.maps, pair.instances)
    assert 0 < pair.agreement.dice < 1  # noise, of which the image knows nothing of the maps


def test_it_sees_full_batches_of_the_finished_picture_grown_by_reflection(
    critic_engine: Engine, fake_backend: Any
) -> None:
    pairs = list(critic_engine.sample([asked(square(30, 40, height=50, width=70), i) for i in range(3)]))
    first, second = calls(fake_backend)  # batches of two
    assert first.shape == second.shape == (2, 3, 64, 80)
    assert np.array_equal(first[:, :, :50, :70], image_from_pictures(np.stack([pair.image for pair in pairs[:2]])))
    assert np.array_equal(first[:, :, 50:], first[:, :, 36:50][:, :, ::-1])  # row 50 + k shows row 49 - k
    assert np.array_equal(first[:, :, :, 70:], first[:, :, :, 60:70][:, :, :, ::-1])
    assert np.array_equal(second[0], second[1])  # the short one filled with its last
    assert all(pair.seen is not None and pair.seen.maps.shape == (3, 50, 70) for pair in pairs)
    assert [pair.agreement for pair in pairs] == [Agreement(1.0, 1.0)] * 3


def test_it_has_a_stride_of_its_own(critic_folder: Path, fake_backend: Any, edit_manifest: Callable[..., Path]) -> None:
    folder = edit_manifest(lambda raw: raw["critic"].update(stride=32))
    with Engine(Bundle.open(folder), fake_backend) as engine:
        (pair,) = engine.sample([asked(square(8, 8, height=80, width=64))])  # a multiple of the bundle's 16
    assert [image.shape for image in calls(fake_backend)] == [(2, 3, 96, 64)]
    assert pair.seen is not None and pair.seen.maps.shape == (3, 80, 64)


def test_off_it_costs_nothing_and_changes_no_pixel(critic_engine: Engine, fake_backend: Any) -> None:
    requests = [PairRequest(i, 3, 32, 32) for i in range(3)]
    scored = list(critic_engine.sample(requests))
    fake_backend.calls.clear()
    plain = list(critic_engine.sample(requests, critic=False))
    assert calls(fake_backend) == []
    assert [pair.agreement for pair in plain] == [None] * 3
    for one, other in zip(scored, plain, strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.instances, other.instances)


def test_a_bundle_without_critic_scores_nothing(fake_engine: Engine) -> None:
    (pair,) = fake_engine.sample([asked(square(8, 8))])
    assert pair.seen is None and pair.agreement is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda maps: maps[:1],
        lambda maps: maps[:, :2],
        lambda maps: maps[:, :, :-1],
        lambda maps: maps[..., None],
        lambda maps: maps.astype(np.int64),
    ],
)
def test_an_output_of_another_shape_or_type_is_named(
    wrong: Callable[[np.ndarray], np.ndarray], critic_engine: Engine, fake_backend: Any, monkeypatch: Any
) -> None:
    judge = type(fake_backend)._judge
    monkeypatch.setattr(
        type(fake_backend), "_judge", staticmethod(lambda inputs: {"critic_maps": wrong(judge(inputs)["critic_maps"])})
    )
    with pytest.raises(BackendError, match=r"graph 'critic' gave .* as 'critic_maps'") as caught:
        list(critic_engine.sample([asked(square(8, 8))]))
    assert caught.value.note == "floats of the shape (2, 3, 64, 64)"


def test_a_value_that_is_not_finite_is_named(critic_engine: Engine, fake_backend: Any) -> None:
    fake_backend.poison = {(CRITIC, 1): 1}
    with pytest.raises(NumericsError, match=r"graph 'critic' .* pair 8, seed 5, after the last step"):
        list(critic_engine.sample([asked(square(8, 8), 7), asked(square(9, 9), 8)]))


# --- in the bundle ---------------------------------------------------------------------------------------------


def test_a_manifest_keeps_it_and_one_without_has_no_word_of_it(critic_folder: Path) -> None:
    manifest = Bundle.open(critic_folder).manifest
    assert manifest.critic == {"stride": 16, "architecture": "threshold", "folds": ["train"], "parameters": 0}
    assert type(manifest).from_json(manifest.to_json()) == manifest
    assert "critic" in Bundle.open(critic_folder).graphs


def test_a_manifest_without_critic_is_what_older_engines_read(bundle_folder: Path) -> None:
    manifest = Bundle.open(bundle_folder).manifest
    assert manifest.critic is None
    assert "critic" not in json.loads(manifest.to_json())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.pop("critic"), "has the graph of a critic and lacks its description"),
        (lambda raw: raw["graphs"].pop("critic"), "has the description of a critic and lacks its graph"),
        (lambda raw: raw["graphs"]["critic"]["inputs"][0].update(name="x"), "graph 'critic' .* has the inputs x"),
        (lambda raw: raw["graphs"]["critic"].update(outputs=[]), "graph 'critic' .* has the outputs"),
        (lambda raw: raw.update(critic="threshold"), "critic is 'threshold', not an object"),
        (lambda raw: raw["critic"].pop("stride"), "critic stride is None, not a whole number from 1 to 256"),
        (lambda raw: raw["files"]["critic.onnx"].update(sha256="0" * 64), "critic.onnx does not have the SHA-256"),
    ],
)
def test_what_a_bundle_says_of_its_critic_is_checked(
    change: Callable[[Any], Any], message: str, critic_folder: Path, edit_manifest: Callable[..., Path]
) -> None:
    with pytest.raises(BundleError, match=message):
        Bundle.open(edit_manifest(change))


def test_show_names_it(critic_folder: Path) -> None:
    done = CliRunner().invoke(main, ["show", "--bundle", str(critic_folder)])
    assert "critic stride 16, architecture threshold, folds train, parameters 0" in done.stdout
    assert "graph  critic" in done.stdout


def test_what_is_shown_of_it_is_short_and_printable() -> None:
    assert critic_text({"a": "\x1b[2J", "b": "x" * 200, "c": {"left": "out"}}) == f"critic a \\x1b[2J, b {'x' * 78}"


def test_show_says_that_there_is_none(bundle_folder: Path) -> None:
    done = CliRunner().invoke(main, ["show", "--bundle", str(bundle_folder)])
    assert "critic none: pairs are not scored" in done.stdout

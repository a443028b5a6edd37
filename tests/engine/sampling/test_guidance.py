"""Guidance: weights, where it acts, what it costs, and what it does to a denoised estimate."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from msdm_engine import Engine, PairRequest
from msdm_engine.bundle.manifest import Sampling
from msdm_engine.conditions.colour import Colour, RegionColour
from msdm_engine.contract import CONDITIONER, DENOISER
from msdm_engine.errors import RequestError
from msdm_engine.sampling.guidance import MAX_SCALE, MIN_SCALE, WITHOUT, Guidance

INSTANCES = np.pad(np.ones((16, 16), np.int32), 8)
# Far from the limits of 8 bits, so that guided colours are not clipped.
COLOUR = Colour(RegionColour((120.0, 130.0, 140.0), (1.0,) * 3), RegionColour((135.0, 120.0, 125.0), (1.0,) * 3))
REQUESTS = [PairRequest(index, 1, 32, 32, INSTANCES, COLOUR) for index in range(2)]


def sampling(engine: Engine, steps: int = 6, solver: str = "euler") -> Sampling:
    return engine.bundle.manifest.sampling.changed(steps=steps, solver=solver, batch=2)


@pytest.mark.parametrize("scales", list(product((MIN_SCALE, 0.0, 0.5, MAX_SCALE), repeat=3)))
def test_weights_sum_to_one(scales: tuple[float, float, float]) -> None:
    branches = Guidance(*scales).branches()
    # Sums of up to four numbers of at most 61 in float64.
    assert sum(weight for _, weight in branches) == pytest.approx(1, abs=1e-13)
    assert branches[0][0] == "all"
    assert len(branches) == 1 + sum(scale != 0 for scale in scales)
    assert {name for name, _ in branches} <= set(WITHOUT)


def test_each_strength_weighs_its_own_branch() -> None:
    assert Guidance(text=2.0).branches() == (("all", 3.0), ("without text", -2.0))
    assert Guidance(colour=0.5).branches() == (("all", 1.5), ("without colour", -0.5))
    assert Guidance(overall=-0.5).branches() == (("all", 0.5), ("none", 0.5))
    assert Guidance(text=-0.0, colour=0.0).branches() == (("all", 1.0),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": -0.96}, "guidance text is -0.96"),
        ({"colour": 20.5}, "-0.95 to 20"),
        ({"overall": float("nan")}, "guidance overall is nan"),
        ({"sigma_low": -1}, "guidance interval -1 to inf"),
        ({"sigma_low": 2, "sigma_high": 1}, "guidance interval 2 to 1"),
        ({"sigma_high": float("nan")}, "guidance interval 0.0 to nan"),
        ({"sigma_low": float("nan")}, "guidance interval nan to inf"),
    ],
)
def test_illegal_guidance_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Guidance(**given)


def test_the_interval_holds_its_ends() -> None:
    guidance = Guidance(text=1, sigma_low=0.5, sigma_high=5)
    assert [guidance.acts_at(sigma) for sigma in (0.49, 0.5, 1.0, 5.0, 5.01)] == [False, True, True, True, False]


def folds(backend: Any) -> list[tuple[float, int]]:
    """Noise level and guidance branches of each run of the denoiser; checks that everything has that many."""
    runs = []
    for graph, inputs in backend.calls:
        if graph == DENOISER:
            branches = inputs["guidance"].shape[0]
            assert {inputs[name].shape[:2] for name in ("pooled", "map_features_0", "guidance")} == {(branches, 2)}
            assert inputs["state"].shape[0] == 2
            runs.append((float(inputs["row"][0]), branches))
    return runs


@pytest.mark.parametrize(
    ("guidance", "guided_branches"),
    [
        (Guidance(), 1),
        (Guidance(text=1), 2),
        (Guidance(text=1, colour=1), 3),
        (Guidance(1, 1, 1), 4),
        (Guidance(text=1, sigma_low=0.5, sigma_high=5), 2),
        (Guidance(1, 1, 1, sigma_low=100), 4),
    ],
)
def test_branches_run_inside_the_interval_and_one_outside(
    guidance: Guidance, guided_branches: int, fake_engine: Engine, fake_backend: Any
) -> None:
    table = sampling(fake_engine).table()
    list(fake_engine.sample(REQUESTS, sampling(fake_engine), guidance))
    sigmas = table[:, 0].astype(np.float32)
    assert folds(fake_backend) == [(s, guided_branches if guidance.acts_at(s) else 1) for s in map(float, sigmas)]
    # The conditioner runs once, over all branches at once, but that of nothing, which it is shown once and for all.
    nothing = guidance.overall != 0
    conditioned = [inputs["maps"].shape[0] for graph, inputs in fake_backend.calls if graph == CONDITIONER]
    assert conditioned == [*([2] if nothing else []), 2 * (guided_branches - nothing)]
    list(fake_engine.sample(REQUESTS, sampling(fake_engine), guidance))
    again = [inputs["maps"].shape[0] for graph, inputs in fake_backend.calls if graph == CONDITIONER]
    assert again == [*conditioned, conditioned[-1]]


def test_strength_0_is_none_bit_for_bit(fake_engine: Engine, fake_backend: Any) -> None:
    plain = [p.image.tobytes() for p in fake_engine.sample(REQUESTS, sampling(fake_engine))]
    runs = len(fake_backend.calls)
    zero = Guidance(0.0, -0.0, 0.0, sigma_low=0.1, sigma_high=1)
    assert [p.image.tobytes() for p in fake_engine.sample(REQUESTS, sampling(fake_engine), zero)] == plain
    given, repeated = fake_backend.calls[1:runs], fake_backend.calls[runs:]  # the text is encoded once
    assert [graph for graph, _ in given] == [graph for graph, _ in repeated]
    for (_, first), (_, second) in zip(given, repeated, strict=True):
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_bundle_decides_where_nothing_is_said(fake_engine: Engine, fake_backend: Any) -> None:
    tuned = Guidance(colour=0.5, sigma_high=5)
    manifest = replace(fake_engine.bundle.manifest, guidance=tuned)
    with Engine(replace(fake_engine.bundle, manifest=manifest), fake_backend) as engine:
        by_default, named, none = (
            [p.image.tobytes() for p in engine.sample(REQUESTS, sampling(engine), guidance)]
            for guidance in (None, tuned, Guidance())
        )
    assert by_default == named != none
    assert none == [p.image.tobytes() for p in fake_engine.sample(REQUESTS, sampling(fake_engine))]


def test_as_json() -> None:
    assert Guidance(text=1).to_json() == {
        "text": 1, "colour": 0.0, "overall": 0.0, "sigma_low": 0.0, "sigma_high": None,
    }  # fmt: skip
    assert Guidance(sigma_high=5).to_json()["sigma_high"] == 5


def test_an_interval_without_a_row_is_none(fake_engine: Engine) -> None:
    plain = [p.image.tobytes() for p in fake_engine.sample(REQUESTS, sampling(fake_engine))]
    nowhere = Guidance(text=5, colour=5, sigma_low=1000)
    assert [p.image.tobytes() for p in fake_engine.sample(REQUESTS, sampling(fake_engine), nowhere)] == plain


@pytest.mark.parametrize("strength", [-0.5, 0.5, 2.0])
def test_the_estimate_is_the_weighted_sum_of_its_branches(strength: float, fake_engine: Engine) -> None:
    """One step ends at D. The fake denoiser gives the colour asked for, and 127.5 (0 in [-1, 1]) without one."""
    (pair, _) = fake_engine.sample(REQUESTS, sampling(fake_engine, steps=1), Guidance(colour=strength))
    assert COLOUR.foreground is not None and COLOUR.background is not None
    for region, inside in ((COLOUR.foreground, INSTANCES > 0), (COLOUR.background, INSTANCES == 0)):
        expected = 127.5 + (1 + strength) * (np.array(region.mean) - 127.5)
        # Rounded to 8 bits; a half rounds either way after float32 arithmetic.
        assert np.abs(pair.image[inside] - expected).max() <= 0.501


def test_a_branch_hides_its_modality_only(fake_engine: Engine, fake_backend: Any) -> None:
    engine = fake_engine
    request = replace(REQUESTS[0], metadata=replace(REQUESTS[0].metadata, description="violet"))
    list(engine.sample([request, request], sampling(engine, steps=1), Guidance(1, 1, 1)))
    nothing, inputs = [inputs for graph, inputs in fake_backend.calls if graph == CONDITIONER]
    whole = {name: np.concatenate([value, nothing[name]]) for name, value in inputs.items()}
    seen = {
        name: [bool(np.any(branch)) for branch in value.reshape(4, 2, *value.shape[1:])]
        for name, value in whole.items()
    }
    # Branches: all, without text, without colour, none.
    assert seen["maps"] == seen["maps_present"] == [True, True, True, False]
    assert seen["colour"] == seen["colour_present"] == [True, True, False, False]
    assert seen["token_mask"] == [True, False, True, False]

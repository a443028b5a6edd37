"""Requests as Python objects: what is legal for some bundle, and what makes two requests one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msdm_engine.conditions.colour import RegionColour
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.errors import RequestError
from msdm_engine.requests.request import (
    MAX_PAIRS,
    ColourChoice,
    GroupRequest,
    Invent,
    Layout,
    Masks,
    SetRequest,
    check_whole,
    shown,
)
from msdm_engine.sampling.guidance import Guidance

GREY = RegionColour((100.0, 100.0, 100.0), (10.0, 10.0, 10.0))
INVENT = GroupRequest(Invent(), count=1)


@pytest.mark.parametrize(
    "group",
    [
        INVENT,
        GroupRequest(Masks(Path("masks"))),
        GroupRequest(Masks(Path("masks")), count=MAX_PAIRS),
        GroupRequest(Layout("round"), count=1, height_px=64, width_px=4096),
        GroupRequest(Layout("columnar", {"rows": 2, "crowding": 1, "orientation_deg": -180.0}), count=1),
        replace(INVENT, height_px=16, width_px=4096, seed=2**64 - 1, steps=1000, solver="euler"),
        replace(INVENT, colour=ColourChoice(GREY, None, jitter=64), metadata=Metadata(description="x" * 2000)),
    ],
)
def test_legal_at_the_ends_of_the_ranges(group: GroupRequest) -> None:
    assert SetRequest((group,)).groups == (group,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": None}, "count is missing"),
        ({"count": 0}, "count is 0"),
        ({"count": MAX_PAIRS + 1}, "1 to 10000000"),
        ({"count": True}, "count is True"),
        ({"count": 1.5}, r"count is 1\.5"),
        ({"count": "8"}, "count is '8'"),
        ({"height_px": 15}, "16 to 4096"),
        ({"width_px": 4097}, "16 to 4096"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"steps": 0}, "1 to 1000"),
        ({"steps": 1001}, "1 to 1000"),
        ({"solver": "dpm"}, "unknown solver 'dpm'"),
        ({"preset": ""}, "the preset has no name"),
        ({"morphology": Masks(Path("m")), "height_px": 64}, "the masks decide the size"),
        ({"morphology": Masks(Path("m")), "width_px": 64}, "the masks decide the size"),
        ({"morphology": Layout("columnr")}, "did you mean 'columnar'"),
        ({"morphology": Layout("round", {"area": 30})}, "did you mean 'area_px'"),
        ({"morphology": Layout("round", {"area_px": 29})}, "area_px is 29"),
        ({"morphology": Layout("round", {"area_px": float("nan")})}, "area_px is nan"),
        ({"morphology": Layout("round", {"rows": 2})}, "no option rows"),
        ({"morphology": Layout("round"), "height_px": 32}, "height_px is 32"),
        ({"morphology": Layout("round", {"area_px": 20000}), "height_px": 64, "width_px": 64}, "too large"),
        ({"metadata": Metadata(assay="x" * 2001)}, "assay has 2001 characters"),
    ],
)
def test_illegal_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        replace(INVENT, **changes)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"image": Path("a.png")}, "the picture and its mask"),
        ({"mask": Path("a.png")}, "the picture and its mask"),
        ({"image": Path("a"), "mask": Path("b"), "foreground": GREY}, "numbers and a picture"),
        ({"image": Path("a"), "mask": Path("b"), "background": GREY}, "numbers and a picture"),
        ({"jitter": -1}, "jitter -1"),
        ({"jitter": 64.1}, "0 to 64"),
        ({"jitter": float("nan")}, "jitter nan"),
    ],
)
def test_illegal_colour(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ColourChoice(**choice)


def test_a_set_has_1_to_1000_groups_and_at_most_ten_million_pairs() -> None:
    with pytest.raises(RequestError, match="0 groups"):
        SetRequest(())
    with pytest.raises(RequestError, match="1001 groups"):
        SetRequest((INVENT,) * 1001)
    with pytest.raises(RequestError, match="at most 10000000 in a set"):
        SetRequest((replace(INVENT, count=MAX_PAIRS), INVENT))
    seeds: tuple[Any, ...] = (-1, 2**64, True, 0.5)
    for seed in seeds:
        with pytest.raises(RequestError, match="seed is"):
            SetRequest((INVENT,), seed=seed)


def test_equal_requests_have_one_hash_and_other_ones_have_others() -> None:
    base = replace(INVENT, guidance=Guidance(text=1, sigma_high=5), colour=ColourChoice(GREY))
    whole = replace(base, guidance=Guidance(text=1.0, sigma_high=5.0))
    others = [
        SetRequest((base,), seed=1),
        SetRequest((base, base)),
        SetRequest((replace(base, count=2),)),
        SetRequest((replace(base, seed=0),)),
        SetRequest((replace(base, guidance=Guidance(text=1)),)),
        SetRequest((replace(base, guidance=Guidance()),)),
        SetRequest((replace(base, guidance=None),)),  # the bundle's, which need not be none
        SetRequest((replace(base, colour=ColourChoice(None, GREY)),)),
        SetRequest((replace(base, morphology=Layout("round")),)),
        SetRequest((replace(base, morphology=Layout("round", {"crowding": 0.25})),)),
        SetRequest((replace(base, morphology=Masks(Path("somewhere/a"))),)),
    ]
    hashes = [SetRequest((base,)).sha256(), *(other.sha256() for other in others)]
    assert SetRequest((whole,)).sha256() == hashes[0]
    assert len(set(hashes)) == len(hashes)


def test_the_record_names_no_folder_of_the_machine() -> None:
    colour = ColourChoice(image=Path("/home/someone/tile.png"), mask=Path("/home/someone/mask.png"))
    request = SetRequest((GroupRequest(Masks(Path("/home/someone/masks")), colour=colour),))
    assert "someone" not in str(request.to_json())
    assert request.to_json()["groups"][0]["morphology"] == {"masks": "masks"}


def test_values_in_messages_stay_short() -> None:
    assert shown(10**5000) == "a number of 16610 bits"  # 5000 log2(10) = 16609.6
    assert shown([10**5000]) == "a list"
    assert len(shown("x" * 10**6)) == 120
    with pytest.raises(RequestError, match="n is a number of 16610 bits"):
        check_whole("n", 10**5000, 0, 1)

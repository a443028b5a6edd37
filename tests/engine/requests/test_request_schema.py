"""The published schema says what the parser says: the same constants, and the same verdict on the same requests."""

from __future__ import annotations

import json
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from msdm_engine.cli import main
from msdm_engine.critic import DEFAULT_REDRAWS, MAX_REDRAWS
from msdm_engine.errors import RequestError
from msdm_engine.layouts.request import KINDS, MAX_ASPECT, ONLY_FOR, RANGES, WHOLE_NUMBERS
from msdm_engine.pairs import MAX_SIDE_PX, MIN_SIDE_PX
from msdm_engine.requests.file import COLOUR_KEYS, GROUP_KEYS, GUIDANCE_KEYS, METADATA_KEYS, TOP_KEYS, parse_request
from msdm_engine.requests.request import (
    FORMAT_VERSION,
    LAYOUT_OPTIONS,
    MAX_GROUPS,
    MAX_JITTER,
    MAX_PAIRS,
    MAX_SEED,
    MAX_TEXT_CHARACTERS,
)
from msdm_engine.sampling.guidance import MAX_SCALE, MIN_SCALE
from msdm_engine.sampling.schedule import MAX_STEPS, SOLVERS

SCHEMA: dict[str, Any] = json.loads(resources.files("msdm_engine").joinpath("request.schema.json").read_text())
DEFS = SCHEMA["$defs"]
VALIDATOR = Draft202012Validator(SCHEMA)


def bounds(schema: dict[str, Any]) -> tuple[float, float]:
    return schema["minimum"], schema["maximum"]


def test_it_is_a_schema_and_the_command_prints_it() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    printed = CliRunner().invoke(main, ["schema"])
    assert printed.exit_code == 0
    assert json.loads(printed.output) == SCHEMA


def test_keys_are_those_of_the_parser() -> None:
    expected = {"group": GROUP_KEYS, "colour": COLOUR_KEYS, "metadata": METADATA_KEYS, "guidance": GUIDANCE_KEYS}
    assert set(SCHEMA["properties"]) == set(TOP_KEYS)
    assert {name: set(DEFS[name]["properties"]) for name in expected} == {k: set(v) for k, v in expected.items()}
    assert set(DEFS["layout"]["properties"]) == {"layout", *LAYOUT_OPTIONS}
    closed = [SCHEMA, *(DEFS[name] for name in (*expected, "masks", "layout", "region"))]
    assert all(schema["additionalProperties"] is False for schema in closed)


def test_ranges_are_those_of_the_code() -> None:
    group, layout = DEFS["group"]["properties"], DEFS["layout"]["properties"]
    assert SCHEMA["properties"]["version"]["const"] == FORMAT_VERSION
    assert SCHEMA["properties"]["groups"]["maxItems"] == MAX_GROUPS
    assert bounds(DEFS["seed"]) == (0, MAX_SEED)
    assert bounds(DEFS["side"]) == (MIN_SIDE_PX, MAX_SIDE_PX)
    assert bounds(group["count"]) == (1, MAX_PAIRS)
    assert bounds(group["steps"]) == (1, MAX_STEPS)
    assert bounds(group["max_redraws"]) == (0, MAX_REDRAWS)
    assert group["max_redraws"]["default"] == DEFAULT_REDRAWS
    assert bounds(DEFS["colour"]["properties"]["jitter"]) == (0, MAX_JITTER)
    assert bounds(DEFS["strength"]) == (MIN_SCALE, MAX_SCALE)
    assert {text["maxLength"] for text in DEFS["metadata"]["properties"].values()} == {MAX_TEXT_CHARACTERS}
    assert group["solver"]["enum"] == list(SOLVERS)
    assert layout["layout"]["enum"] == list(KINDS)
    assert {name: bounds(layout[name]) for name in LAYOUT_OPTIONS} == {name: RANGES[name] for name in LAYOUT_OPTIONS}
    whole = {name for name in LAYOUT_OPTIONS if layout[name]["type"] == "integer"}
    assert whole == set(WHOLE_NUMBERS) & set(LAYOUT_OPTIONS)


def test_options_of_single_kinds_are_those_of_the_code() -> None:
    for option, value in (("rows", 1), ("stroma", 0.5), ("orientation_deg", 0)):
        for kind in KINDS:
            legal = VALIDATOR.is_valid(request({"morphology": {"layout": kind, option: value}, "count": 1}))
            assert legal == (kind in ONLY_FOR[option])
    assert set(ONLY_FOR) == {"rows", "stroma", "orientation_deg"}
    for kind in KINDS:
        most = MAX_ASPECT.get(kind, RANGES["aspect_ratio"][1])
        for ratio, legal in ((most, True), (most + 0.5, False)):
            layout = {"layout": kind, "aspect_ratio": ratio}
            assert VALIDATOR.is_valid(request({"morphology": layout, "count": 1})) == legal


def request(*groups: Any, **top: Any) -> dict[str, Any]:
    return {"version": 1, "groups": list(groups), **top}


INVENT: dict[str, Any] = {"morphology": "invent", "count": 1}
LAYOUT: dict[str, Any] = {"morphology": {"layout": "columnar"}, "count": 1}
MASKS: dict[str, Any] = {"morphology": {"masks": "m"}}
REGION: dict[str, Any] = {"mean": [0, 127.5, 255], "std": [0, 1, 127.5]}

GOOD: list[Any] = [
    request(INVENT),
    request(LAYOUT, MASKS, INVENT, seed=0),
    request(INVENT, seed=2**64 - 1),
    request(INVENT, seed=3.0, version=1.0),
    request(*[INVENT] * 1000),
    request({**MASKS, "count": 10**7}),
    *(request({**INVENT, "size": size}) for size in (16, 4096, 64.0, [16, 4096])),
    *(request({**LAYOUT, "size": size}) for size in (64, [64, 4096])),
    request({**INVENT, "preset": "p", "seed": 0, "steps": 1000, "solver": "sde-dpmpp-2m"}),
    request({**INVENT, "colour": {"foreground": REGION, "background": REGION, "jitter": 64}}),
    request({**INVENT, "colour": {"image": "a", "mask": "b/c", "jitter": 0}}),
    request({**INVENT, "metadata": {"assay": "", "indication": "x" * 2000, "description": "é"}}),
    request({**INVENT, "guidance": {"text": -0.95, "colour": 20, "overall": 0, "sigma_low": 0, "sigma_high": 0}}),
    *(request({**INVENT, "min_agreement": at_least}) for at_least in (0, 0.5, 1)),
    *(request({**INVENT, "min_agreement": 0.9, "max_redraws": redraws}) for redraws in (0, 3.0, 255)),
    request({**LAYOUT, "morphology": {"layout": "columnar", "rows": 4, "stroma": 1, "orientation_deg": -180}}),
    request({**LAYOUT, "morphology": {"layout": "round", "count": 65535.0, "area_px": 30, "crowding": 0}}),
    request({**LAYOUT, "morphology": {"layout": "spindle", "density_per_mpx": 1, "area_spread": 0.8}}),
]


def changed(group: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A request of one group with one part exchanged; the key may be dotted."""
    group = deepcopy(group)
    at, *rest = key.split(".")
    place = group
    for part in rest:
        place = place.setdefault(at, {})
        at = part
    place[at] = value
    return request(group)


def without(group: dict[str, Any], key: str) -> dict[str, Any]:
    return request({k: v for k, v in group.items() if k != key})


WRONG: dict[str, list[Any]] = {
    "count": [0, -1, 10**7 + 1, 1.5, True, "1", None, [1]],
    "size": [15, 4097, 64.5, True, None, "64", [64], [64, 64, 64], [64, 15], [64, None], {}],
    "preset": ["", 1, None, []],
    "seed": [-1, 2**64, 0.5, False, None, "5"],
    "steps": [0, 1001, 2.5, True, None],
    "solver": ["dpm", "", None, 1, "Euler"],
    "min_agreement": [-0.1, 1.1, True, None, "0.8"],
    "max_redraws": [3],
    "color": [{}],
    "morphology": ["", "Invent", 1, None, [], {}, {"masks": ""}, {"masks": "a\0b"}, {"masks": 1}, {"layout": "none"}],
    "colour": [None, [], "red", 1],
    "colour.jitter": [-0.1, 64.1, True, None, "1"],
    "colour.foreground": [None, {}, {"mean": [1, 2, 3]}, {**REGION, "var": 1}, [1, 2, 3]],
    "colour.background.mean": [[1, 2, 3]],
    "colour.hue": [1],
    "colour.image": ["a", 1, None],
    "colour.mask": ["a", ""],
    "metadata": [None, "text", []],
    "metadata.assay": [None, 1, True, "x" * 2001],
    "metadata.organ": ["colon"],
    "guidance": [None, 1, []],
    "guidance.text": [-0.96, 20.1, True, None, "1"],
    "guidance.sigma_low": [-1, None],
    "guidance.sigma_high": [-0.1, True],
    "guidance.scale": [1],
}
WRONG_LAYOUT: dict[str, list[Any]] = {
    "size": [63, [64, 63]],
    "morphology.count": [0, 65536, 1.5, True],
    "morphology.area_px": [29, 20001, None, "30"],
    "morphology.rows": [0, 5, 1.5],
    "morphology.orientation_deg": [181, -181],
    "morphology.crowding": [-0.1, 1.1, None],
    "morphology.aspect_ratio": [0.9, 8.1],
    "morphology.area_spread": [-0.1, 0.9],
    "morphology.stroma": [2],
    "morphology.density_per_mpx": [0, 20001],
    "morphology.height_px": [64],
    "morphology.seed": [1],
    "morphology.masks": ["m"],
}
BAD: list[Any] = [
    None,
    [],
    1,
    {},
    {"version": 1},
    {"groups": [INVENT]},
    *(request(INVENT, version=version) for version in (0, 2, True, "1", None)),
    *(request(INVENT, seed=seed) for seed in (-1, 2**64, 0.5, True, None, "0")),
    request(INVENT, comment=""),
    request(),
    request(*[INVENT] * 1001),
    *({"version": 1, "groups": groups} for groups in (None, {}, 1, INVENT)),
    *map(request, (None, [], "invent", 1)),
    *(changed({**INVENT, "min_agreement": 0.8}, "max_redraws", redraws) for redraws in (-1, 256, 1.5, True, None)),
    without(INVENT, "morphology"),
    without(INVENT, "count"),
    without(LAYOUT, "count"),
    request({**MASKS, "size": 64}),
    changed({**INVENT, "colour": {"image": "a", "mask": "b"}}, "colour.foreground", REGION),
    changed({**INVENT, "colour": {"background": REGION}}, "colour.foreground.mean", [1, 2, 3]),
    *(
        changed({**INVENT, "colour": {"foreground": REGION}}, "colour.foreground.mean", m)
        for m in ([1, 2], [1, 2, 256])
    ),
    changed({**INVENT, "colour": {"foreground": REGION}}, "colour.foreground.std", [1, 2, 127.6]),
    changed({**LAYOUT, "morphology": {"layout": "round", "count": 3}}, "morphology.density_per_mpx", 100),
    *(changed(INVENT, key, value) for key, values in WRONG.items() for value in values),
    *(changed(LAYOUT, key, value) for key, values in WRONG_LAYOUT.items() for value in values),
]


@pytest.mark.parametrize("raw", GOOD, ids=lambda raw: json.dumps(raw)[:80])
def test_good_requests_are_good_to_both(raw: Any, tmp_path: Path) -> None:
    parse_request(json.dumps(raw), root=tmp_path)
    assert VALIDATOR.is_valid(raw)


@pytest.mark.parametrize("raw", BAD, ids=lambda raw: json.dumps(raw)[:80])
def test_bad_requests_are_bad_to_both(raw: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        parse_request(json.dumps(raw), root=tmp_path)
    assert not VALIDATOR.is_valid(raw)

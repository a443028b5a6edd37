from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from msdm_engine.errors import RequestError
from msdm_train.evaluation.usefulness.arms import arm_named
from msdm_train.evaluation.usefulness.config import (
    Protocol,
    fractions_of,
    generator_config,
    key_of,
)
from msdm_train.evaluation.usefulness.folds import Cell
from msdm_train.evaluation.usefulness.parts import Part
from msdm_train.evaluation.usefulness.words import protocol_in_words

MakeProtocol = Callable[..., Protocol]


def test_protocol_is_json_and_words(quick_protocol: MakeProtocol) -> None:
    protocol = quick_protocol()
    assert json.loads(json.dumps(protocol.to_json())) == protocol.to_json()
    assert "'tiny', 2 steps of 2 crops" in protocol_in_words(protocol)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fractions": ()}, "label fractions"),
        ({"fractions": (1.0, 0.25)}, "label fractions"),
        ({"seeds": 0}, "0 seeds"),
        ({"synthetic_share": 0.0}, "synthetic_share"),
        ({"synthetic_share": 1.0}, "synthetic_share"),
    ],
)
def test_illegal_protocols_are_refused(quick_protocol: MakeProtocol, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        replace(quick_protocol(), **changes)


@pytest.mark.parametrize(
    "changes",
    [{"pairs": 0}, {"side_px": 66}, {"side_px": 32}, {"sampling_steps": 0}, {"sigma_min": 0.0}, {"solver": "x"}],
)
def test_illegal_generators_are_refused(quick_protocol: MakeProtocol, changes: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        replace(quick_protocol().generator, **changes)


def test_generators_without_a_plan_need_their_steps() -> None:
    assert generator_config("base", steps=10).fit.steps == 10
    with pytest.raises(RequestError, match="no number of steps is planned"):
        generator_config("base")
    with pytest.raises(RequestError, match="unknown preset"):
        generator_config("tinny")


def test_fractions_are_read() -> None:
    assert fractions_of("0.25,1") == (0.25, 1.0)
    with pytest.raises(RequestError, match="label fractions 'all'"):
        fractions_of("all")


def test_keys_change_with_what_decides_a_part(quick_protocol: MakeProtocol) -> None:
    protocol, cell = quick_protocol(), Cell(0, 0.25, ("a",), ("b",))
    other_cell = Cell(0, 0.25, ("c",), ("b",))
    other_pairs = replace(protocol, generator=replace(protocol.generator, pairs=5))
    real, columnar = (Part(cell, arm_named(name), 0) for name in ("real", "columnar"))
    assert real.key(protocol) == Part(cell, arm_named("real"), 0).key(quick_protocol(seeds=3))
    assert real.key(protocol) == real.key(other_pairs)  # it has no synthetic crops
    assert columnar.key(protocol) != columnar.key(other_pairs)
    assert real.key(protocol) != Part(cell, arm_named("real"), 1).key(protocol)
    assert real.key(protocol) != Part(other_cell, arm_named("real"), 0).key(protocol)
    assert real.key(protocol) != real.key(quick_protocol(segmenter_steps=9))


def test_key_is_sixteen_digits_of_its_facts() -> None:
    assert len(key_of(1, "a")) == 16
    assert key_of(1, "a") != key_of("1", "a")


def test_unknown_arm_names_the_nearest() -> None:
    with pytest.raises(RequestError, match="did you mean 'columnar'"):
        arm_named("columner")

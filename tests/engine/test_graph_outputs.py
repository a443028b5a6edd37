"""Graphs come with a bundle, which is untrusted: what they give out is checked before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from msdm_engine import Engine, PairRequest
from msdm_engine.contract import CONDITIONER, DENOISER, TEXT_ENCODER
from msdm_engine.errors import BackendError, NumericsError

WRONG: dict[str, Callable[[np.ndarray], Any]] = {
    "fewer": lambda value: value[:1],
    "more": lambda value: np.concatenate([value, value]),
    "flat": lambda value: value.reshape(-1),
    "a number": lambda value: np.float32(1),
    "whole numbers": lambda value: value.astype(np.int64),
    "texts": lambda value: value.astype(str).astype(object),
    "a list": lambda value: list(value),
    "nothing": lambda value: None,
}


# Texts are encoded one at a time: the first of one is all of it.
CASES = [(g, w) for g in (TEXT_ENCODER, CONDITIONER, DENOISER) for w in WRONG if (g, w) != (TEXT_ENCODER, "fewer")]


@pytest.mark.parametrize(("graph", "how"), CASES)
def test_what_is_not_of_the_contract_s_shape_and_type_is_named(
    graph: str, how: str, fake_engine: Engine, fake_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = type(fake_backend).run

    def run(backend: Any, name: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        outputs = original(backend, name, inputs)
        if name == graph:
            last = list(outputs)[-1]
            outputs[last] = WRONG[how](outputs[last])
        return outputs

    monkeypatch.setattr(type(fake_backend), "run", run)
    with pytest.raises(BackendError, match=f"graph '{graph}' gave"):
        list(fake_engine.sample([PairRequest(index, 1, 32, 32) for index in range(2)]))


def test_half_precision_conditions_are_legal(
    fake_engine: Engine, fake_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = type(fake_backend).run

    def run(backend: Any, name: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        outputs = original(backend, name, inputs)
        return {k: v.astype(np.float16) for k, v in outputs.items()} if name == CONDITIONER else outputs

    monkeypatch.setattr(type(fake_backend), "run", run)
    assert len(list(fake_engine.sample([PairRequest(0, 1, 32, 32)]))) == 1


def test_infinities_are_no_picture(fake_engine: Engine, fake_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An infinity of either sign, also where both are there and a sum would be NaN."""
    original = type(fake_backend).run

    def run(backend: Any, name: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        outputs = original(backend, name, inputs)
        if name == DENOISER:
            outputs["denoised"][1, 0, 0, :2] = np.inf, -np.inf
        return outputs

    monkeypatch.setattr(type(fake_backend), "run", run)
    with pytest.raises(NumericsError, match="pair 1, seed 1, step 1 of 3"):
        list(fake_engine.sample([PairRequest(index, 1, 32, 32) for index in range(2)]))

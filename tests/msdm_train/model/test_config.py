from __future__ import annotations

import json
from dataclasses import replace

import pytest

from msdm_engine.errors import RequestError
from msdm_train.model.config import PRESETS, ModelConfig, preset


@pytest.mark.parametrize("name", list(PRESETS))
def test_json_round_trip(name: str) -> None:
    config = replace(preset(name), state_mean=(0.1,) * 6)
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_unknown_names_get_the_nearest_legal_one() -> None:
    with pytest.raises(RequestError, match="did you mean 'channels'"):
        ModelConfig.from_json({"chanels": [1]})
    with pytest.raises(RequestError, match="did you mean 'small'"):
        preset("smal")


def test_stride_and_channels() -> None:
    # pixel-unshuffle by 2, then halved three times
    assert preset("small").stride == 16
    assert preset("tiny").stride == 4
    assert (preset("tiny").maps, preset("tiny").state_channels) == (3, 6)
    assert replace(preset("tiny"), n_classes=5).state_channels == 11


def test_a_norm_below_the_coarsest_level_is_refused() -> None:
    with pytest.raises(RequestError, match=r"norm_below \(1,\)"):
        replace(preset("tiny"), norm_below=(1,))

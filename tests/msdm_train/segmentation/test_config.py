from __future__ import annotations

import pytest

from msdm_engine.errors import RequestError
from msdm_train.segmentation.config import SegmenterConfig


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"architecture": "lite"}, "architecture 'lite'\n.*did you mean 'lite0'"),
        ({"augmentation": "classic"}, "did you mean 'classical'"),
        ({"steps": 0}, "steps is 0"),
        ({"crop_px": 100}, "a multiple of 32"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"learning_rate": float("nan")}, "above 0"),
        ({"seed": -1}, "at least 0"),
    ],
)
def test_refuses(changes: dict[str, object], what: str) -> None:
    with pytest.raises(RequestError, match=what):
        SegmenterConfig(**changes)  # type: ignore[arg-type]


def test_json_round_trip_and_unknown_key() -> None:
    config = SegmenterConfig(architecture="lite0", steps=7)
    assert SegmenterConfig.from_json(config.to_json()) == config
    with pytest.raises(RequestError, match="did you mean 'batch'"):
        SegmenterConfig.from_json({"batsh": 3})


def test_rate_rises_and_falls_to_zero() -> None:
    config = SegmenterConfig(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [config.rate(step) for step in range(1, 101)]
    assert rates[0] == 0.1 and max(rates) == rates[9]
    # Half a cosine at its middle, which is step 51: cos(pi / 2) = 0.
    assert rates[50] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001 and rates[9:] == sorted(rates[9:], reverse=True)

from __future__ import annotations

from typing import Any

import pytest

from msdm_engine.errors import RequestError
from msdm_train.training.config import FitConfig

CONFIG = FitConfig(steps=1000, learning_rate=0.01, warmup_steps=100, decay_after_steps=400, cooldown_share=0.2)


@pytest.mark.parametrize(
    ("step", "done_before", "expected"),
    [
        (1, 0, 0.01 / 100),  # warm-up: a hundredth of the peak a step
        (50, 0, 0.005),
        (100, 0, 0.01),
        (400, 0, 0.01),  # flat until decay_after_steps
        (500, 0, 0.01 * (400 / 500) ** 0.5),
        (800, 0, 0.01 * (400 / 800) ** 0.5),  # the last step before the cool-down
        (901, 0, 0.01 * (400 / 901) ** 0.5 * 0.5),  # 100 of the last 200 steps are left
        (1000, 0, 0.01 * (400 / 1000) ** 0.5 / 200),
        (400, 1200, 0.01 * (400 / 1600) ** 0.5),  # steps of earlier runs count for the decay
        (50, 1200, 0.005 * (400 / 1250) ** 0.5),  # but a new optimizer warms up again
    ],
)
def test_rate(step: int, done_before: int, expected: float) -> None:
    assert CONFIG.rate(step, done_before) == pytest.approx(expected, rel=1e-12)


def test_no_cool_down() -> None:
    config = FitConfig(steps=500, learning_rate=0.01, warmup_steps=1, cooldown_share=0)
    assert config.rate(500, 0) == 0.01


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch", 0),
        ("crop_px", -1),
        ("warmup_steps", 0),
        ("save_every", 0),
        ("log_every", 0),
        ("validate_every", 0),
        ("seed", -1),
        ("workers", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("cooldown_share", 1.5),
        ("mixed_precision", "int8"),
    ],
)
def test_illegal_values_are_named(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=str(value)):
        FitConfig(**{"steps": 10, name: value})

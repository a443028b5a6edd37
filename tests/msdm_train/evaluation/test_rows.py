from __future__ import annotations

from typing import Any

import pytest

from msdm_train.evaluation.rows import Row
from msdm_train.evaluation.statistics import Interval


def row(value: float, low: float | None = None, high: float | None = None, **more: Any) -> Row:
    return Row("a score", Interval(value, low, high, 5), 10, "measured", **more)


@pytest.mark.parametrize(
    ("score", "weak"),
    [
        # A distance: real tiles give 1, mismatched ones 3; the middle is 2.
        (row(1.9, 1.5, 2.4, want="low", floor=1, ceiling=3), ""),
        (row(2.1, 1.5, 2.4, want="low", floor=1, ceiling=3), "nearer to the bad end than to the good one"),
        (row(1.9, 1.5, 3.1, want="low", floor=1, ceiling=3), "its interval reaches the bad end"),
        (row(0.5, 0.4, 0.6, want="low", floor=1, ceiling=3), ""),
        # A share: mirrored.
        (row(0.8, 0.5, 0.9, want="high", floor=0.1, ceiling=0.9), ""),
        (row(0.4, 0.3, 0.6, want="high", floor=0.1, ceiling=0.9), "nearer to the bad end than to the good one"),
        (row(0.8, 0.1, 0.9, want="high", floor=0.1, ceiling=0.9), "its interval reaches the bad end"),
        # Without an interval, the value itself stands for it.
        (row(3.0, want="low", floor=1, ceiling=3), "its interval reaches the bad end"),
        # With a good end only, and with none.
        (row(1.2, 0.9, 1.5, want="low", floor=1), ""),
        (row(1.2, 1.1, 1.5, want="low", floor=1), "its interval does not reach what real tiles give"),
        (row(0.8, 0.7, 0.85, want="high", ceiling=0.9), "its interval does not reach what real tiles give"),
        (row(7.0, want="low"), ""),
        (row(7.0, floor=1, ceiling=3), ""),
        (row(2.0, 1.9, 2.1, want="low", floor=3, ceiling=1), "its ends do not tell good from bad on these pictures"),
        (row(2.0, 1.9, 2.1, want="high", floor=2, ceiling=2), "its ends do not tell good from bad on these pictures"),
        (row(1.0, 0.9, 1.1, want="low", floor=1, ceiling=3, flaw="it is blind"), "it is blind"),
        # A ratio to real: above one is a cartoon.
        (row(1.0, want="one"), ""),
        (row(0.94, want="one"), "outside 0.95 to 1.05"),
        (row(1.06, want="one"), "outside 0.95 to 1.05"),
    ],
)
def test_the_stated_rule(score: Row, weak: str) -> None:
    assert score.weak() == weak
    assert score.to_json()["weak"] == weak


def test_a_row_as_json() -> None:
    told = row(1.0, 0.5, 1.5, want="low", floor=float("nan"), ceiling=2, unit="px").to_json()
    assert (told["value"], told["low"], told["high"], told["n"], told["n_fields"]) == (1.0, 0.5, 1.5, 10, 5)
    assert (told["floor"], told["ceiling"], told["unit_of_value"], told["exploratory"]) == (None, 2, "px", True)

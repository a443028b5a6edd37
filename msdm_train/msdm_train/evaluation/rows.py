"""A score of the report: its value between a floor and a ceiling, and the stated rule by which it is called weak."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from msdm_train.evaluation.statistics import Interval

#: A ratio to the score of real tiles that is neither worse than real nor a cartoon.
RATIO_LOW, RATIO_HIGH = 0.95, 1.05

RULE = (
    "A score is called weak if it lies nearer to its bad end than to its good one, or its interval reaches the bad "
    "end; with a good end only, if its interval does not reach that; a ratio to real, if it lies outside "
    f"{RATIO_LOW:g} to {RATIO_HIGH:g}. It is weak as well where both ends do not come out in their order, so that it "
    "tells nothing, or where the measurement failed a check of its own. The floor is the good end of what should be "
    "low, the ceiling of what should be high. Fewer than eight fields are called exploratory."
)


@dataclass(frozen=True)
class Row:
    """One score.

    Args:
        name: what was measured.
        interval: value, ends, number of fields.
        n: pictures or pairs of pictures.
        protocol: how, in words.
        unit: of value, floor and ceiling; empty: a share or ratio.
        want: ``low``, ``high`` or ``one`` (a ratio to real); empty: it only informs.
        floor, ceiling: lowest and highest that is to be expected, measured where it can be; None: not known.
        flaw: why the number tells nothing, whatever it is; empty where the measurement passed its own checks.
    """

    name: str
    interval: Interval
    n: int
    protocol: str
    unit: str = ""
    want: str = ""
    floor: float | None = None
    ceiling: float | None = None
    flaw: str = ""

    def weak(self) -> str:
        """Why the score is weak by :data:`RULE`; empty where it is not."""
        if self.flaw:
            return self.flaw
        value = self.interval.value
        if self.want == "one":
            return "" if RATIO_LOW <= value <= RATIO_HIGH else f"outside {RATIO_LOW:g} to {RATIO_HIGH:g}"
        if self.want not in ("low", "high"):
            return ""
        # Mirrored where high is good, so that low is good below.
        sign = 1 if self.want == "low" else -1
        good, bad = (self.floor, self.ceiling) if self.want == "low" else (self.ceiling, self.floor)
        ends = [sign * end for end in (self.interval.low, self.interval.high) if end is not None] or [sign * value]
        if bad is not None and good is not None and sign * good >= sign * bad:
            return "its ends do not tell good from bad on these pictures"
        if bad is not None:
            if max(ends) >= sign * bad:
                return "its interval reaches the bad end"
            if good is not None and sign * value - sign * good > sign * bad - sign * value:
                return "nearer to the bad end than to the good one"
        elif good is not None and min(ends) > sign * good:
            return "its interval does not reach what real tiles give"
        return ""

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in ``report.json``."""
        return {
            "name": self.name,
            **self.interval.to_json(),
            "n": self.n,
            "unit_of_value": self.unit,
            "want": self.want,
            "floor": _finite(self.floor),
            "ceiling": _finite(self.ceiling),
            "weak": self.weak(),
            "protocol": self.protocol,
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

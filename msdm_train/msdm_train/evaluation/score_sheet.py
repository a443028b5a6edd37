"""Collects the rows of a section, and what could not be measured with its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import InputError
from msdm_train.evaluation.context import Context
from msdm_train.evaluation.rows import RULE, Row
from msdm_train.evaluation.statistics import Statistic, bootstrap_by_field


class ScoreSheet:
    """Rows of one section; intervals come from the bootstrap over fields."""

    def __init__(self, context: Context) -> None:
        self.seed, self.resamplings = context.seed, 200 if context.quick else 1000
        self.rows: list[Row] = []
        self.refused: list[dict[str, str]] = []

    def mean(
        self,
        name: str,
        values: NDArray[np.float64],
        fields: Sequence[str],
        protocol: str,
        *,
        floor: NDArray[np.float64] | float | None = None,
        ceiling: NDArray[np.float64] | float | None = None,
        unit: str = "",
        want: str = "",
        flaw: str = "",
    ) -> None:
        """The mean of [n] values, one a picture. Where a value is nan the picture does not take part.

        Args:
            floor, ceiling: a number, or [n] values whose mean over the pictures that take part is meant.
        """
        kept = np.isfinite(values)
        if not kept.any():
            self.refused.append({"name": name, "reason": "it is defined on none of the pictures"})
            return
        finite = values[kept]
        self.statistic(
            name, lambda i: float(finite[i].mean()), [f for f, k in zip(fields, kept, strict=True) if k], protocol,
            floor=_mean(floor, kept), ceiling=_mean(ceiling, kept), unit=unit, want=want, flaw=flaw,
        )  # fmt: skip

    def statistic(
        self,
        name: str,
        statistic: Statistic,
        fields: Sequence[str],
        protocol: str,
        *,
        floor: float | None = None,
        ceiling: float | None = None,
        unit: str = "",
        want: str = "",
        flaw: str = "",
    ) -> None:
        """A number of the samples whose fields are given."""
        interval = bootstrap_by_field(fields, statistic, resamplings=self.resamplings, seed=self.seed)
        if not np.isfinite(interval.value):
            self.refused.append({"name": name, "reason": "it is not defined on these pictures"})
            return
        self.rows.append(Row(name, interval, len(fields), protocol, unit, want, floor, ceiling, flaw))

    def attempt(self, name: str, measure: Callable[[], None]) -> None:
        """Runs a part of the section; where it cannot be measured, it is refused and the others go on."""
        try:
            measure()
        except InputError as error:
            self.refused.append({"name": name, "reason": error.render()})

    def to_json(self) -> dict[str, Any]:
        """What the section returns."""
        return {"rule": RULE, "rows": [row.to_json() for row in self.rows], "refused": self.refused}


def _mean(values: NDArray[np.float64] | float | None, kept: NDArray[np.bool_]) -> float | None:
    """Mean over the pictures that take part; None where it is not known."""
    if not isinstance(values, np.ndarray):
        return values
    finite = values[kept & np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None

"""Coordinate-wise search: one thing is varied at a time, around the best setting so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msdm_train.evaluation.tuning.candidate import Candidate, Coordinate, Measured, choose


@dataclass(frozen=True)
class Search:
    """What was tried.

    Args:
        start: the present default.
        tried: every setting, in the order in which it was measured.
        path: the setting that each coordinate left as the best, by the coordinate's name.
        chosen: the best of all that were tried, by the rule.
    """

    start: Candidate
    tried: dict[Candidate, Measured]
    path: dict[str, Candidate]
    chosen: Candidate


def search(start: Candidate, coordinates: Sequence[Coordinate], measure: Callable[[Candidate], Measured]) -> Search:
    """Measures the start, then each coordinate's settings around the best of those before; none is measured twice."""
    tried = {start: measure(start)}
    path: dict[str, Candidate] = {}
    best = start
    for coordinate in coordinates:
        options = [best, *coordinate.around(best)]
        for candidate in options:
            if candidate not in tried:
                tried[candidate] = measure(candidate)
        best = choose({c: tried[c] for c in options}, tried[start])
        path[coordinate.name] = best
    return Search(start, tried, path, choose(tried, tried[start]))

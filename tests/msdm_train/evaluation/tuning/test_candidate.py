from __future__ import annotations

import math
from dataclasses import replace

import pytest

from msdm_engine.bundle.manifest import Sampling
from msdm_engine.errors import RequestError
from msdm_engine.sampling.guidance import Guidance
from msdm_train.evaluation.tuning.candidate import COORDINATES, Candidate, Coordinate, Measured, choose, front
from msdm_train.evaluation.tuning.search import search

SAMPLING = Sampling("euler", 10, 0.01, 40.0, 7.0, size_px=64, batch=2)


def steps(count: int, guidance: Guidance | None = None) -> Candidate:
    return Candidate(replace(SAMPLING, steps=count), guidance or Guidance())


def measured(distance: float, fidelity: float | None = None) -> Measured:
    return Measured(distance, fidelity, 0.0)


def test_the_cost_counts_the_branches_of_guided_steps() -> None:
    assert steps(10).cost == 10
    assert steps(10, Guidance(text=1)).cost == 20
    assert steps(10, Guidance(text=1, overall=0.5)).cost == 30
    sigmas = SAMPLING.table()[:, 0]
    # Guided in the three rows of lowest noise only: one more run in each.
    assert steps(10, Guidance(text=1, sigma_high=float(sigmas[-3]))).cost == 13
    with pytest.raises(RequestError, match="unknown solver"):
        Candidate(replace(SAMPLING, solver="heun"), Guidance())


def test_the_cheapest_of_those_near_the_best_is_chosen() -> None:
    present = measured(2.0, 0.9)
    tried = {steps(10): present, steps(20): measured(1.0, 0.9), steps(40): measured(0.99, 0.9)}
    assert choose(tried, present) == steps(20)  # 0.99 is within 2 % of it
    tried[steps(80)] = measured(0.9, 0.9)
    assert choose(tried, present) == steps(80)


def test_what_loses_fidelity_is_not_chosen() -> None:
    present = measured(2.0, 0.9)
    tried = {steps(10): present, steps(20): measured(1.0, 0.87), steps(30): measured(1.5, 0.885)}
    assert choose(tried, present) == steps(30)  # 0.03 and 0.015 below the present default; 0.02 is allowed
    without = {c: measured(m.distance) for c, m in tried.items()}
    assert choose(without, measured(2.0)) == steps(20)


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    tried = {steps(10): measured(3.0), steps(20): measured(2.0), steps(30): measured(2.5), steps(40): measured(1.0)}
    assert front(tried) == [steps(10), steps(20), steps(40)]


def test_the_search_finds_a_planted_optimum_and_measures_nothing_twice() -> None:
    seen: list[Candidate] = []

    def measure(candidate: Candidate) -> Measured:
        seen.append(candidate)
        # Best at 28 steps of an ancestral solver with overall guidance 0.5, and sigma_max 20.
        s, g = candidate.sampling, candidate.guidance
        away = abs(math.log(s.steps / 28)) + (s.solver != "euler-ancestral") + abs(g.overall - 0.5)
        return measured(1 + away + abs(g.text) + abs(g.colour) + (s.sigma_max != 20) / 2 + (s.rho != 7) / 4)

    done = search(Candidate(SAMPLING, Guidance()), COORDINATES, measure)
    chosen = done.chosen
    assert (chosen.sampling.solver, chosen.sampling.steps, chosen.sampling.sigma_max) == ("euler-ancestral", 28, 20)
    assert (chosen.guidance.overall, chosen.guidance.text, chosen.guidance.colour) == (0.5, 0, 0)
    assert chosen.guidance.sigma_high < math.inf  # as good, and cheaper
    assert len(seen) == len(set(seen)) == len(done.tried)
    assert list(done.path) == [c.name for c in COORDINATES]


def test_an_interval_is_searched_only_where_something_is_guided() -> None:
    interval: Coordinate = next(c for c in COORDINATES if c.name == "guidance interval")
    assert interval.around(steps(10)) == []
    assert len(interval.around(steps(10, Guidance(colour=0.5)))) == 3

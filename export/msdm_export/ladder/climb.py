"""Climbs the ladder: every rung on the reference's inputs, then along its own trajectory from the same noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from msdm_engine.contract import DENOISER, DENOISER_OUTPUTS
from msdm_export.conditions import Case, Run, Visit, pictures_of, walk
from msdm_export.ladder.diverging import Layer, first_diverging
from msdm_export.ladder.errors import HIGH_OVER_RMS, LARGEST_OVER_RMS, Difference
from msdm_export.ladder.rungs import Models, Rung

FINAL, DENOISED = DENOISER_OUTPUTS


@dataclass
class Found:
    """The worst of an output over all visits, each measure on its own; ``share`` is of the tolerance."""

    largest: float = 0.0
    high: float = 0.0
    relative: float = 0.0
    share: float = 0.0
    sigma: float | None = None
    case: str = ""
    first_layer: Layer | None = None

    @property
    def passed(self) -> bool:
        """Whether all measures were within their tolerance in all visits."""
        return self.share <= 1.0

    def add(self, difference: Difference, bound: float, sigma: float | None, case: str) -> None:
        """Keeps the worst; the share is that of the strictest of the three tolerances.

        Args:
            bound: of the root mean square.
        """
        bound = max(bound, float(np.finfo(np.float32).tiny))
        share = max(
            difference.rms / bound,
            difference.high / (HIGH_OVER_RMS * bound),
            difference.largest / (LARGEST_OVER_RMS * bound),
        )
        if math.isnan(share):  # the reference is not finite: nothing agrees with that
            share = math.inf
        if share > self.share:
            self.share, self.sigma, self.case = share, sigma, case
        self.largest = max(self.largest, difference.largest)
        self.high = max(self.high, difference.high)
        self.relative = max(self.relative, difference.relative)

    def as_json(self) -> dict[str, Any]:
        """For the report; what is not finite is null."""
        numbers = {name: finite(getattr(self, name)) for name in ("largest", "high", "relative", "share")}
        return {
            "largest_difference": numbers["largest"],
            "difference_99_9": numbers["high"],
            "relative_l2": numbers["relative"],
            "share_of_tolerance": numbers["share"],
            "worst_at_noise_level": self.sigma,
            "worst_case": self.case,
            "passed": self.passed,
            "first_diverging_layer": self.first_layer.as_json() if self.first_layer else None,
        }


@dataclass
class RungResult:
    """What was found of one rung: outputs by graph, the denoised estimate by noise level, whole trajectories."""

    outputs: dict[str, dict[str, Found]] = field(default_factory=dict)
    levels: dict[float, float] = field(default_factory=dict)
    trajectory: Found = field(default_factory=Found)
    largest_of_255: int = 0
    mean_of_255: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every graph alone and all trajectories passed."""
        return self.trajectory.passed and all(f.passed for found in self.outputs.values() for f in found.values())


def climb(
    reference: Run,
    sources: Models,
    rungs: Iterable[Rung],
    cases: Iterable[Case],
    table: np.ndarray,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, RungResult]:
    """Runs every rung that can be run here.

    Args:
        reference: what all are compared with.
        sources: float32 graphs, for the search of a first diverging layer.
        table: rows of the solver.
    """
    running = [rung for rung in rungs if rung.run is not None]
    results = {rung.name: RungResult() for rung in running}
    for case in cases:
        visits = list(walk(reference, case, table))
        for rung in running:
            report(f"{rung.name}: {case.size}")
            for visit in visits:
                _compare(rung, visit, str(case.size), sources, results[rung.name])
            _follow(rung, visits, case, table, results[rung.name])
    return results


def _compare(rung: Rung, visit: Visit, case: str, sources: Models, result: RungResult) -> None:
    """One run of one graph on the reference's inputs."""
    assert rung.run is not None and rung.tolerance is not None
    outputs = rung.run(visit.graph, visit.inputs)
    for name, expected in visit.outputs.items():
        difference = Difference.between(outputs[name], expected)
        found = result.outputs.setdefault(visit.graph, {}).setdefault(name, Found())
        found.add(difference, rung.tolerance.of(visit, name), visit.sigma, case)
        if not found.passed and found.first_layer is None and visit.graph in rung.models:
            model = rung.models[visit.graph]
            if model is not sources[visit.graph]:
                found.first_layer = first_diverging(sources[visit.graph], model, rung.tolerance, visit)
        if visit.graph == DENOISER and name == DENOISED and visit.sigma is not None:
            level = round(visit.sigma, 4)
            result.levels[level] = max(result.levels.get(level, 0.0), difference.relative)


def _follow(rung: Rung, visits: list[Visit], case: Case, table: np.ndarray, result: RungResult) -> None:
    """A whole trajectory of the rung against the reference's, from the same noise."""
    assert rung.run is not None and rung.tolerance is not None
    final, expected = (
        [visit for visit in at if visit.graph == DENOISER][-1].outputs[FINAL]
        for at in (walk(rung.run, case, table), visits)
    )
    bound = trajectory_bound(rung, visits)
    result.trajectory.add(Difference.between(final, expected), bound, None, str(case.size))
    mine, theirs = (pictures_of(state) for state in (final, expected))
    off = np.abs(mine.astype(int) - theirs)
    result.largest_of_255 = max(result.largest_of_255, int(off.max()))
    result.mean_of_255 = max(result.mean_of_255, float(off.mean()))


#: Over the bound for Gaussian data: the gain of real data is larger where the trajectory decides between modes.
GAIN = 4.0


def trajectory_bound(rung: Rung, visits: list[Visit]) -> float:
    """Largest root mean square by which the end of a trajectory may differ.

    The step to noise level s' adds its own error, and what follows scales it. For Gaussian data of standard deviation
    sigma_d the probability flow from s' to 0 scales a difference by sigma_d / sqrt(s'^2 + sigma_d^2) (Karras et al.
    2022, equation 1 with the ideal denoiser). Errors of the steps are summed, as if all pointed one way.
    """
    assert rung.tolerance is not None
    std = rung.tolerance.state_std
    steps = [visit for visit in visits if visit.graph == DENOISER]
    following = [visit.sigma or 0.0 for visit in steps[1:]] + [0.0]
    total = 0.0
    for visit, sigma in zip(steps, following, strict=True):
        total += rung.tolerance.of(visit, FINAL) * std / math.hypot(sigma, std)
    return GAIN * total


def finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None

"""A way to sample, what it costs, what it gave, and the stated rule by which one of several is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from msdm_engine.bundle.manifest import Sampling
from msdm_engine.sampling.guidance import Guidance
from msdm_engine.sampling.schedule import SOLVERS

#: Distances within this share of the lowest are one: runs differ by as much with another seed of the noise.
DISTANCE_TOLERANCE = 0.02
#: A setting may lose this much Dice against the bundle's present default.
FIDELITY_TOLERANCE = 0.02

RULE = (
    "Of the settings whose mask fidelity (Dice of the evaluator's foreground with the mask) is at most "
    f"{FIDELITY_TOLERANCE:g} below that of the present default, those within {DISTANCE_TOLERANCE:.0%} of the lowest "
    "Wasserstein distance; of these the cheapest."
)


@dataclass(frozen=True)
class Candidate:
    """Sampling and guidance of one setting.

    Raises:
        RequestError: a schedule that float64 cannot hold, or an unknown solver.
    """

    sampling: Sampling
    guidance: Guidance

    def __post_init__(self) -> None:
        self.sampling.table()

    @property
    def cost(self) -> int:
        """Runs of the U-Net for one pair: the steps, and in those that are guided one more for each branch."""
        guided = sum(self.guidance.acts_at(float(sigma)) for sigma in self.sampling.table()[:, 0])
        return self.sampling.steps + guided * (len(self.guidance.branches()) - 1)

    def text(self) -> str:
        """In a line."""
        s, g = self.sampling, self.guidance
        told = [f"{s.solver}, {s.steps} steps, sigma {s.sigma_min:g} to {s.sigma_max:g}, rho {s.rho:g}"]
        strengths = [f"{name} {value:g}" for name in ("text", "colour", "overall") if (value := getattr(g, name))]
        if strengths:
            told.append(f"guidance {', '.join(strengths)} at sigma {g.sigma_low:g} to {g.sigma_high:g}")
        return "; ".join(told)

    def to_json(self) -> dict[str, Any]:
        """Its parts."""
        return {"sampling": asdict(self.sampling), "guidance": self.guidance.to_json(), "cost": self.cost}


@dataclass(frozen=True)
class Measured:
    """What a setting gave.

    Args:
        distance: exact 2-Wasserstein distance of generated and real embeddings, equal n.
        fidelity: mean Dice of the evaluator's foreground with the mask asked for; None without an evaluator.
        seconds: of generating one pair; on one machine, a hint.
    """

    distance: float
    fidelity: float | None
    seconds: float


def choose(tried: Mapping[Candidate, Measured], reference: Measured) -> Candidate:
    """The setting that :data:`RULE` names; of equals the first.

    Args:
        tried: not empty.
        reference: the present default.
    """
    least = None if reference.fidelity is None else reference.fidelity - FIDELITY_TOLERANCE
    faithful = {c: m for c, m in tried.items() if least is None or m.fidelity is None or m.fidelity >= least}
    allowed = faithful or tried
    best = min(m.distance for m in allowed.values())
    near = [c for c, m in allowed.items() if m.distance <= best * (1 + DISTANCE_TOLERANCE)]
    return min(near, key=lambda c: (c.cost, allowed[c].distance))


def front(tried: Mapping[Candidate, Measured]) -> list[Candidate]:
    """Settings that no other beats in cost and distance both, cheapest first."""
    found: list[Candidate] = []
    for candidate in sorted(tried, key=lambda c: (c.cost, tried[c].distance)):
        if not found or tried[candidate].distance < tried[found[-1]].distance:
            found.append(candidate)
    return found


@dataclass(frozen=True)
class Coordinate:
    """One thing that is varied while the rest stays: its name, and the settings to try beside the best so far."""

    name: str
    around: Callable[[Candidate], Sequence[Candidate]]


def _sampling(name: str, values: Sequence[Any]) -> Coordinate:
    return Coordinate(name, lambda c: [replace(c, sampling=replace(c.sampling, **{name: v})) for v in values])


def _guidance(name: str, values: Sequence[float]) -> Coordinate:
    return Coordinate(
        f"guidance {name}", lambda c: [replace(c, guidance=replace(c.guidance, **{name: v})) for v in values]
    )


def _intervals(values: Sequence[tuple[float, float]]) -> Coordinate:
    def around(candidate: Candidate) -> list[Candidate]:
        if len(candidate.guidance.branches()) == 1:
            return []  # nothing is guided
        return [
            replace(candidate, guidance=replace(candidate.guidance, sigma_low=low, sigma_high=high))
            for low, high in values
        ]

    return Coordinate("guidance interval", around)


#: In the order in which they are searched: what matters most first.
COORDINATES = (
    _sampling("solver", tuple(SOLVERS)),
    _sampling("steps", (12, 20, 28, 40)),
    _guidance("overall", (0.0, 0.25, 0.5, 1.0)),
    _guidance("text", (0.0, 0.5, 1.0)),
    _guidance("colour", (0.0, 0.5, 1.0)),
    _intervals(((0.0, 5.0), (0.1, 5.0), (0.3, float("inf")))),
    _sampling("sigma_max", (20.0, 40.0, 80.0)),
    _sampling("rho", (5.0, 7.0, 9.0)),
)
QUICK_COORDINATES = (_sampling("solver", ("euler-ancestral", "dpmpp-2m")), _sampling("steps", (12, 20)),
                     _guidance("overall", (0.0, 0.5)))  # fmt: skip

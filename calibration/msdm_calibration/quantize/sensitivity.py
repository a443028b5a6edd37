"""What each block costs, and the largest set of blocks within a budget.

Every block is quantised alone, and left out alone; the score is cheap: the final state's relative error over whole
trajectories of a few windows. Blocks are then taken in the order of squared error for the work that they save, which
is the greedy rule for a knapsack whose errors add up as independent errors do, in squares. Where to stop is not
estimated: candidate sets are judged by `msdm-train evaluate`, as a command, by what it writes into its report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from msdm_calibration.quantize.budget import Budget, Scores
from msdm_calibration.quantize.calibrate import Calibrated, Say
from msdm_calibration.quantize.kept_errors import KeptErrors, key_of_errors
from msdm_calibration.quantize.subject import relative_l2
from msdm_calibration.quantize.variants import write

#: Judges a bundle in a precision; None is float32.
Judge = Callable[[Path, str | None], Scores]


@dataclass(frozen=True)
class Block:
    """One block.

    Args:
        share: of a step's matrix work.
        alone: relative L2 of the final state with only this block quantised.
        without: the same with all blocks quantised but this one.
    """

    name: str
    share: float
    alone: float
    without: float


@dataclass(frozen=True)
class Candidate:
    """A set of blocks.

    Args:
        blocks: in the order in which they were taken.
        share: of a step's matrix work below half.
        predicted: root of the sum of the blocks' squared errors alone.
        measured: relative L2 of the final state of the set itself; None: not measured.
        scores: of the evaluation; None: not evaluated. ``within``: the budget.
    """

    blocks: tuple[str, ...]
    share: float
    predicted: float
    measured: float | None = None
    scores: Scores | None = None
    within: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


class Sensitivity:
    """Measurements of one calibration over a few of its windows.

    Args:
        kept: file of the errors that were measured before an interruption.
    """

    def __init__(self, calibrated: Calibrated, windows: int, say: Say, kept: Path) -> None:
        self.calibrated, self.say = calibrated, say
        self.kept = KeptErrors(kept, key_of_errors(calibrated, windows))
        self.subject = calibrated.subject
        self.requests = self.subject.requests[:windows]
        self.nodes = {name: [t.node for t in targets] for name, targets in self.subject.targets.blocks().items()}

    @cached_property
    def expected(self) -> np.ndarray:
        """Final states in float32: [windows, C, H, W]."""
        return self.subject.finals(self.subject.sessions(), self.requests)

    def error(self, blocks: Sequence[str]) -> float:
        """Relative L2 of the final states with these blocks quantised; 0 for none."""
        return self.kept.of(blocks, lambda: self._measured(blocks)) if blocks else 0.0

    def _measured(self, blocks: Sequence[str]) -> float:
        nodes = [node for block in blocks for node in self.nodes[block]]
        model = self.calibrated.model(nodes).SerializeToString()
        return relative_l2(self.subject.finals(self.subject.sessions(model), self.requests), self.expected)

    def share(self, blocks: Sequence[str]) -> float:
        """Share of a step's matrix work of these blocks."""
        flops = self.subject.flops
        return sum(flops[node] for block in blocks for node in self.nodes[block]) / sum(flops.values())

    def blocks(self) -> list[Block]:
        """Each block alone and left out alone."""
        found = []
        for number, name in enumerate(self.nodes, start=1):
            self.say(f"block {number} of {len(self.nodes)}: {name}")
            others = [other for other in self.nodes if other != name]
            found.append(Block(name, self.share([name]), self.error([name]), self.error(others)))
        return found


def front(blocks: Sequence[Block]) -> list[Candidate]:
    """Sets of growing size: each takes the block next that has the least squared error for its work."""
    ordered = sorted(blocks, key=lambda block: (block.alone**2 / max(block.share, 1e-12), block.name))
    found, taken, share, squares = [Candidate((), 0.0, 0.0)], [], 0.0, 0.0
    for block in ordered:
        taken.append(block.name)
        share, squares = share + block.share, squares + block.alone**2
        found.append(Candidate(tuple(taken), share, squares**0.5))
    return found


def largest_within(
    candidates: Sequence[Candidate], budget: Budget, plain: Scores, judge: Callable[[Candidate], Scores]
) -> list[Candidate]:
    """Judges few candidates: the largest; if that is over the budget, halves what is left, as errors grow.

    Args:
        candidates: of :func:`front`, growing; the first, of no blocks, is within any budget.
        plain: scores of float32.

    Returns:
        the candidates, those that were judged with their scores; the largest that is within is the last one so marked.
    """
    found = list(candidates)
    found[0] = replace(found[0], within=True)
    low, high, at = 0, len(found), len(found) - 1
    while low + 1 < high:
        scores = judge(found[at])
        within = budget.allows(scores, plain)
        found[at] = replace(found[at], scores=scores, within=within)
        low, high = (at, high) if within else (low, at)
        at = (low + high) // 2
    return found


def sensitivity(
    calibrated: Calibrated,
    budget: Budget,
    judge: Judge,
    out: Path,
    *,
    rest: str | None,
    windows: int,
    kept: Path,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Measures, searches, and writes the largest set within the budget into a new bundle.

    Args:
        kept: file of errors that an interrupted search goes on from.
        out: the bundle; candidates are written over one another there, the chosen one last.
        windows: that the cheap score is measured on.

    Returns:
        what the report holds.

    Raises:
        MsdmError: of the evaluation or of the output.
    """
    measuring = Sensitivity(calibrated, windows, say, kept)
    blocks = measuring.blocks()
    candidates = [replace(c, measured=measuring.error(c.blocks)) for c in front(blocks)]
    bundle, name = calibrated.subject.bundle, calibrated.grid.name
    details = {block.name: {"error_alone": block.alone, "error_without": block.without} for block in blocks}

    def written(candidate: Candidate) -> Path:
        nodes = [node for block in candidate.blocks for node in measuring.nodes[block]]
        write(calibrated, rest, nodes, details, out)
        return out

    def judged(candidate: Candidate) -> Scores:
        say(f"evaluating {len(candidate.blocks)} blocks, {100 * candidate.share:.1f} % of the matrix work")
        return judge(written(candidate), name)

    say("evaluating float32")
    plain = judge(bundle.folder, None)
    candidates = largest_within(candidates, budget, plain, judged)
    chosen = [candidate for candidate in candidates if candidate.within][-1]
    written(chosen)
    return {
        "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "precision": name,
        "budget": budget.to_json(),
        "scored_windows": windows,
        "float32": asdict(plain),
        "blocks": [asdict(block) for block in blocks],
        "front": [candidate.to_json() for candidate in candidates],
        "chosen": chosen.to_json(),
    }

"""How much worse pictures may become, and the scores that say so: read from the report of `msdm-train evaluate`."""

from __future__ import annotations

import json
import math
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import FLOAT32
from msdm_engine.errors import InputError, RequestError

TERM = re.compile(r"\s*(dice|wasserstein)\s+([0-9]+(?:\.[0-9]+)?)\s*(%?)\s*")


@dataclass(frozen=True)
class Scores:
    """Of one evaluation.

    Args:
        dice: pooled, of the evaluator's masks against those asked for, 0 to 1.
        wasserstein: 2-Wasserstein distance of embeddings to real pictures.
    """

    dice: float
    wasserstein: float


@dataclass(frozen=True)
class Budget:
    """What a quantised bundle may lose.

    Args:
        dice_points: hundredths of Dice.
        wasserstein_percent: of the float32 bundle's own distance.
    """

    dice_points: float = math.inf
    wasserstein_percent: float = math.inf

    @staticmethod
    def parse(text: str) -> Budget:
        """``dice 0.5, wasserstein 3%``.

        Raises:
            RequestError: another form, or a term twice.
        """
        found: dict[str, float] = {}
        for part in text.split(","):
            term = TERM.fullmatch(part)
            if term is None or term[1] in found or (term[3] == "%") != (term[1] == "wasserstein"):
                raise RequestError(
                    f"budget '{text}'",
                    note="terms are 'dice POINTS' (hundredths) and 'wasserstein PERCENT%', each at most once",
                    hint='for instance --budget "dice 0.5, wasserstein 3%"',
                )
            found[term[1]] = float(term[2])
        return Budget(found.get("dice", math.inf), found.get("wasserstein", math.inf))

    def allows(self, scores: Scores, plain: Scores) -> bool:
        """Whether these scores are no more than the budget worse than those of float32."""
        lost = 100 * (plain.dice - scores.dice)
        grown = 100 * (scores.wasserstein / plain.wasserstein - 1)
        return lost <= self.dice_points and grown <= self.wasserstein_percent

    def to_json(self) -> dict[str, float | None]:
        """Terms that bound something."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Evaluation:
    """`msdm-train evaluate` as a command: calibration knows its options and its report, not its code.

    Args:
        data: packed data set; its split val judges.
        evaluator: folder of a segmenter.
        out: folder of the reports, one for each bundle and precision; what one holds is not measured again.
        quick: few windows: minutes.
    """

    data: Path
    evaluator: Path
    out: Path
    quick: bool = True
    program: tuple[str, ...] = ("msdm-train",)

    def __call__(self, bundle: Path, precision: str | None) -> Scores:
        """Runs the command on a bundle.

        Raises:
            InputError: it failed; its own words are in the note.
        """
        out = self.out / f"{precision or FLOAT32}-{Bundle.open(bundle).sha256[:16]}"
        command = [*self.program, "evaluate", "--bundle", str(bundle), "--data", str(self.data), "--out", str(out)]
        command += ["--evaluator", str(self.evaluator), "--threads", "1"]
        command += ["--section", "fidelity", "--section", "closeness"]
        if precision is not None:
            command += ["--precision", precision]
        command += ["--quick"] * self.quick
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise InputError(f"{command[0]} cannot be run: {error}", hint="pip install 'msdm[train]'") from error
        if done.returncode:
            raise InputError(
                f"`msdm-train evaluate` failed on {bundle}", note=done.stderr.strip()[-600:], hint=" ".join(command)
            )
        return scores_of(json.loads((out / "report.json").read_text()))


def scores_of(report: dict[str, Any]) -> Scores:
    """The two scores of a report.

    Raises:
        InputError: it lacks one, with the reason that it gives.
    """
    sections = report.get("sections", {})
    try:
        fidelity, closeness = (sections[name]["result"] for name in ("fidelity", "closeness"))
        dice = fidelity["scores"]["generated"]["pooled"]["dice"]
        distances = {entry["measure"]: entry["value"] for entry in closeness["other measures"]}
        distance = next(value for measure, value in distances.items() if measure.startswith("2-Wasserstein"))
    except (KeyError, TypeError, StopIteration) as error:
        told = {name: section.get("reason", section.get("status")) for name, section in sections.items()}
        raise InputError(
            f"the evaluation's report lacks a score: {error!r}",
            note=f"its sections: {told}"[:400],
            hint="give --evaluator a segmenter, and --data a set whose val split has windows",
        ) from error
    return Scores(float(dice), float(distance))

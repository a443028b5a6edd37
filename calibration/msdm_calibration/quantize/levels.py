"""How much each noise level matters: what quantisation at that level alone does to the finished state.

An error at a high noise level is mostly denoised away by the steps that follow, or becomes another picture; one at a
low level stays.
Solver, schedule and network decide which of the two is worse, so it is measured: the trajectory runs in
float32 but for one step, which runs quantised, and ends where it ends.
"""

from __future__ import annotations

import numpy as np

from msdm_calibration.quantize.subject import Subject, relative_l2
from msdm_calibration.trajectory import Arrays, Visit
from msdm_engine.backends import Backend
from msdm_engine.contract import DENOISER


class _OneStep:
    """A backend that quantises one step of a recorded trajectory: steps before it are read from the record."""

    def __init__(self, plain: Backend, crude: Backend, record: list[Arrays], step: int) -> None:
        self.identity = plain.identity
        self._plain, self._crude, self._record, self._at, self._step = plain, crude, record, step, 0

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """Runs one graph."""
        if graph != DENOISER:
            return self._plain.run(graph, inputs)
        step, self._step = self._step, self._step + 1
        if step < self._at:
            return dict(self._record[step])
        return (self._crude if step == self._at else self._plain).run(graph, inputs)

    def close(self) -> None:
        """Leaves both open: they belong to the caller."""


def level_errors(subject: Subject, crude: bytes) -> np.ndarray:
    """[N] relative L2 of the final state when step n alone runs ``crude``, on the subject's first batch.

    Args:
        crude: a quantised denoiser.
    """
    plain, quantised = subject.sessions(), subject.sessions(crude)
    record: list[Arrays] = []

    def see(visit: Visit) -> None:
        if visit.graph == DENOISER:
            record.append(visit.outputs)

    requests = subject.requests[: subject.batch]
    expected = subject.follow(plain, requests, see)
    return np.array(
        [
            relative_l2(subject.follow(_OneStep(plain, quantised, record, step), requests, lambda _: None), expected)
            for step in range(len(record))
        ]
    )


def weights_from_errors(errors: np.ndarray) -> np.ndarray:
    """[N] that sum to one: squared errors, which are what adds up over independent steps."""
    squares = np.square(errors)
    total = squares.sum()
    return squares / total if total > 0 else np.full(len(errors), 1 / len(errors))

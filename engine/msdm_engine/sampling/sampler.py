"""The sampler: a table of coefficients and one graph that is run once a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

State = np.ndarray


class Denoise(Protocol):
    """One step: (x, D_prev, row, z) -> (x', D). Guidance and the update happen inside."""

    def __call__(self, x: State, d_prev: State, row: np.ndarray, z: State) -> tuple[State, State]:
        """x, d_prev, z: [B, C, H, W] float32; row: [5] float32 as in ``contract.SCHEDULE_ROW``."""
        ...


def trajectory(denoise: Denoise, table: np.ndarray, noise: Callable[[int], State]) -> Iterator[tuple[State, State]]:
    """All states of a trajectory, one after each row of the table.

    The update ``x' = c_x x + c_d D + c_prev D_prev + c_noise z`` is linear in everything that a solver combines,
    so Euler, DPM-Solver++(2M) and stochastic variants differ only in their table
    (:mod:`msdm_engine.sampling.schedule`).

    Args:
        denoise: the step.
        table: [N, 5] rows (sigma, c_x, c_d, c_prev, c_noise), the last one ending at sigma = 0.
        noise: ``noise(0)`` is the initial z, ``noise(i)`` the fresh z of row i; asked for only where it is used.

    Yields:
        (x', D) after each row.
    """
    sigma_max = table[0, 0]
    x = (sigma_max * noise(0)).astype(np.float32)
    d = zeros = np.zeros_like(x)
    for i, row in enumerate(table.astype(np.float32), start=1):
        z = noise(i) if row[4] != 0 else zeros
        x, d = denoise(x, d, row, z)
        yield x, d


def sample(denoise: Denoise, table: np.ndarray, noise: Callable[[int], State]) -> State:
    """The end of the trajectory: [B, C, H, W] float32, data in about [-1, 1]."""
    for x, _ in trajectory(denoise, table, noise):  # noqa: B007 (the last state is the result)
        pass
    return x

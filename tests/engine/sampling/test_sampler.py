"""The sampler against independent implementations written from the papers, in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from msdm_engine.sampling.noise import gaussian
from msdm_engine.sampling.sampler import sample, trajectory
from msdm_engine.sampling.schedule import SOLVERS, karras_sigmas, solver_table

SHAPE = (2, 6, 8, 8)
Denoiser = Callable[[np.ndarray, float], np.ndarray]


def initial_noise(step: int = 0) -> np.ndarray:
    return np.stack([gaussian(3, i, step, *SHAPE[1:]) for i in range(SHAPE[0])])


def curved(x: np.ndarray, sigma: float) -> np.ndarray:
    """Not linear in x, as for data that is about -1 or +1; its slope of at most 1 amplifies no rounding."""
    return np.tanh(x / (sigma**2 + 1))


class Step:
    """The contract of the denoiser graph around any D(x, sigma); remembers what it was given."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.rows: list[np.ndarray] = []
        self.noise: list[np.ndarray] = []
        self.previous: list[np.ndarray] = []

    def __call__(
        self, x: np.ndarray, d_prev: np.ndarray, row: np.ndarray, z: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        self.rows.append(row)
        self.noise.append(z)
        self.previous.append(d_prev)
        d = self.denoiser(x.astype(np.float64), float(row[0]))
        following = row[1] * x + row[2] * d + row[3] * d_prev + row[4] * z
        return following.astype(np.float32), d.astype(np.float32)


def karras_euler(denoiser: Denoiser, x: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Karras et al. 2022, algorithm 1 without its second-order correction and without churn."""
    for t, t_next in itertools.pairwise(sigmas):
        slope = (x - denoiser(x, t)) / t
        x = x + (t_next - t) * slope
    return x


def dpm_solver_pp_2m(denoiser: Denoiser, x: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2, data prediction, alpha = 1 and lambda = -log(sigma).

    As is usual, the first step and the last one, to sigma = 0, are of first order.
    """
    q_prev, lambda_prev = np.zeros_like(x), 0.0
    for i, (t, t_next) in enumerate(itertools.pairwise(sigmas)):
        q = denoiser(x, t)
        if t_next == 0:
            return q
        h = -math.log(t_next) + math.log(t)
        direction = q
        if i > 0:
            r = (-math.log(t) - lambda_prev) / h
            direction = (1 + 1 / (2 * r)) * q - 1 / (2 * r) * q_prev
        x = t_next / t * x - (math.exp(-h) - 1) * direction
        q_prev, lambda_prev = q, -math.log(t)
    return x


def stochastic_dpm_solver_pp_2m(denoiser: Denoiser, x: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """SDE-DPM-Solver++(2M), Lu et al. 2022, section 5.1, in the same variables."""
    q_prev, lambda_prev = np.zeros_like(x), 0.0
    for i, (t, t_next) in enumerate(itertools.pairwise(sigmas)):
        q = denoiser(x, t)
        if t_next == 0:
            return q
        h = math.log(t) - math.log(t_next)
        gain = 1 - math.exp(-2 * h)
        x = t_next / t * math.exp(-h) * x + gain * q
        if i > 0:
            r = (-math.log(t) - lambda_prev) / h
            x = x + gain / 2 / r * (q - q_prev)
        x = x + t_next * math.sqrt(gain) * initial_noise(i + 1)
        q_prev, lambda_prev = q, -math.log(t)
    return x


def karras_ancestral(denoiser: Denoiser, x: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """An Euler step down to sigma_down, then noise sigma_up (Song et al. 2021, equation 16 with eta = 1)."""
    for i, (t, t_next) in enumerate(itertools.pairwise(sigmas)):
        up = math.sqrt(t_next**2 * (t**2 - t_next**2) / t**2)
        down = math.sqrt(t_next**2 - up**2)
        x = x + (down - t) * (x - denoiser(x, t)) / t + up * initial_noise(i + 1)
    return x


WRITTEN_HERE = [
    ("euler", karras_euler),
    ("dpmpp-2m", dpm_solver_pp_2m),
    ("euler-ancestral", karras_ancestral),
    ("sde-dpmpp-2m", stochastic_dpm_solver_pp_2m),
]


def test_every_solver_is_written_here() -> None:
    assert {solver for solver, _ in WRITTEN_HERE} == set(SOLVERS)


@pytest.mark.parametrize(("solver", "written_here"), WRITTEN_HERE)
@pytest.mark.parametrize("steps", [1, 2, 3, 12])
def test_the_tables_do_what_the_papers_say(
    solver: str, written_here: Callable[[Denoiser, np.ndarray, np.ndarray], np.ndarray], steps: int
) -> None:
    sigmas = karras_sigmas(steps)
    states = [x for x, _ in trajectory(Step(curved), solver_table(solver, sigmas), initial_noise)]
    for end in range(1, steps + 1):
        expected = written_here(curved, sigmas[0] * initial_noise().astype(np.float64), sigmas[: end + 1])
        # States are about sigma in size and kept in float32: a relative rounding of 6e-8 a step, 1e-6 for a dozen.
        scale = max(1.0, float(np.abs(expected).max()))
        assert np.max(np.abs(states[end - 1] - expected)) < 1e-6 * scale


def test_sample_is_the_end_of_the_trajectory() -> None:
    table = solver_table("dpmpp-2m", karras_sigmas(4))
    *_, (last, _) = trajectory(Step(curved), table, initial_noise)
    assert np.array_equal(sample(Step(curved), table, initial_noise), last)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_last_state_is_the_last_estimate(solver: str) -> None:
    *_, (x, d) = trajectory(Step(curved), solver_table(solver, karras_sigmas(3)), initial_noise)
    assert np.array_equal(x, d)


def test_states_are_float32_and_begin_as_noise_of_the_largest_level() -> None:
    step = Step(lambda x, sigma: x)
    first, _ = next(trajectory(step, solver_table("euler", karras_sigmas(3)), initial_noise))
    assert first.dtype == np.float32
    # D(x) = x: the state stays what it was, 40 z.
    assert np.max(np.abs(first / 40 - initial_noise())) < 1e-6  # two roundings of values up to 5


def test_each_row_is_given_the_estimate_of_the_row_before() -> None:
    step = Step(curved)
    estimates = [d for _, d in trajectory(step, solver_table("dpmpp-2m", karras_sigmas(4)), initial_noise)]
    assert not step.previous[0].any()
    assert all(np.array_equal(step.previous[i + 1], estimates[i]) for i in range(3))


@pytest.mark.parametrize("solver", SOLVERS)
def test_fresh_noise_is_asked_for_only_where_the_row_uses_it(solver: str) -> None:
    table, step, asked = solver_table(solver, karras_sigmas(5)), Step(curved), []

    def noise(number: int) -> np.ndarray:
        asked.append(number)
        return initial_noise(number)

    sample(step, table, noise)
    assert asked == [0, *(i for i, row in enumerate(table, start=1) if row[4] != 0)]
    for i, (row, z) in enumerate(zip(step.rows, step.noise, strict=True), start=1):
        assert np.array_equal(z, initial_noise(i) if row[4] != 0 else np.zeros(SHAPE))


def test_ancestral_samples_of_gaussian_data_have_its_variance() -> None:
    std, steps, shape = 0.7, 100, (6, 64, 64)

    def ideal(x: np.ndarray, sigma: float) -> np.ndarray:
        return x * (std**2 / (std**2 + sigma**2))

    table = solver_table("euler-ancestral", karras_sigmas(steps))
    x = sample(Step(ideal), table, lambda step: gaussian(11, 0, step, *shape)[None])
    n = x.size
    # The linear update propagates the variance exactly; how far that is from std^2 is the business of test_schedule.
    variance = std**2 + table[0, 0] ** 2
    for sigma, c_x, c_d, _, c_noise in table:
        variance = (c_x + c_d * std**2 / (std**2 + sigma**2)) ** 2 * variance + c_noise**2
    # The variance of n normal values is known to sqrt(2 / n); five of these.
    assert abs(x.var() / variance - 1) < 5 * math.sqrt(2 / n)
    assert abs(x.mean()) < 5 * std / math.sqrt(n)

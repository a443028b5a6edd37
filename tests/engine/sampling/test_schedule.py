from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from msdm_engine.errors import RequestError
from msdm_engine.sampling.schedule import MAX_STEPS, SOLVERS, dpmpp_2m_table, karras_sigmas, solver_table

#: Standard deviation of the Gaussian data whose probability flow is known, see `exact`.
DATA_STD = 0.7
STEPS = (16, 32, 64, 128)
STOCHASTIC = ("euler-ancestral", "sde-dpmpp-2m")


def ideal(x: float, sigma: float) -> float:
    """D(x; sigma) of data N(0, s^2): the mean of the data given x (Karras et al. 2022, equation 57 for one point)."""
    return x * DATA_STD**2 / (DATA_STD**2 + sigma**2)


def exact(x: float, sigma_from: float, sigma_to: float) -> float:
    """The probability flow dx/dsigma = (x - D) / sigma of that data in closed form."""
    return x * math.sqrt((DATA_STD**2 + sigma_to**2) / (DATA_STD**2 + sigma_from**2))


def run(table: np.ndarray, x: float) -> list[float]:
    """States after each row, in float64 and without noise."""
    states, d = [], 0.0
    for sigma, c_x, c_d, c_prev, _ in table:
        d_prev, d = d, ideal(x, sigma)
        x = c_x * x + c_d * d + c_prev * d_prev
        states.append(x)
    return states


# --- noise levels ----------------------------------------------------------------------------------------------


def test_karras_levels_begin_and_end_as_asked() -> None:
    sigmas = karras_sigmas(20, sigma_min=0.02, sigma_max=80, rho=7)
    assert sigmas.shape == (21,)
    # Powers 1/7 and 7 give the ends back within a few roundings of 1.1e-16, times 7.
    assert sigmas[[0, -2]] == pytest.approx([80, 0.02], rel=1e-14)
    assert sigmas[-1] == 0
    assert (np.diff(sigmas) < 0).all()


def test_karras_levels_are_equidistant_to_the_power_of_one_over_rho() -> None:
    gaps = np.diff(karras_sigmas(12, 0.01, 40, 7)[:-1] ** (1 / 7))
    assert gaps == pytest.approx([gaps[0]] * 11, rel=1e-12)  # differences of numbers about 1, over 0.1: 1e-15 / 0.1


def test_one_step_goes_from_the_largest_level_to_zero() -> None:
    assert karras_sigmas(1, 0.01, 40).tolist() == pytest.approx([40, 0])


@pytest.mark.parametrize("steps", [0, -1, MAX_STEPS + 1])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(RequestError, match=f"{steps} steps") as caught:
        karras_sigmas(steps)
    assert str(MAX_STEPS) in str(caught.value.note)


@pytest.mark.parametrize(
    "levels",
    [
        {"sigma_min": 0.0},
        {"sigma_min": -1.0},
        {"sigma_min": 50.0},
        {"sigma_max": math.inf},
        {"sigma_max": math.nan},
        {"rho": 0.0},
        {"rho": math.inf},
        {"rho": 1e-3},  # 40^1000 is no float64
        {"rho": 1e-320},
        {"rho": 0.05},  # the smallest level is lost beside 40^20
        {"sigma_min": 40.0 * (1 - 1e-15)},  # ten levels within a few units of the last place
    ],
)
def test_impossible_noise_levels_are_refused(levels: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="noise levels"):
        karras_sigmas(10, **levels)


# --- tables ----------------------------------------------------------------------------------------------------


def test_an_unknown_solver_names_the_nearest() -> None:
    with pytest.raises(RequestError, match="'dpmpp-2s'") as caught:
        solver_table("dpmpp-2s", karras_sigmas(4))
    assert "did you mean 'dpmpp-2m'" in str(caught.value.note)


@pytest.mark.parametrize(("solver", "steps"), [*itertools.product(SOLVERS, (1, 2, 3, 20, MAX_STEPS))])
def test_tables_are_consistent(solver: str, steps: int) -> None:
    sigmas = karras_sigmas(steps)
    table = solver_table(solver, sigmas)
    assert table.shape == (steps, 5)
    assert np.isfinite(table).all()
    assert np.array_equal(table[:, 0], sigmas[:-1])
    # A state that equals its denoised estimate stays: the coefficients sum to one (up to roundings of 1.1e-16).
    assert table[:, 1:4].sum(1) == pytest.approx(np.ones(steps), abs=1e-14)
    assert (table[:, 4] >= 0).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_last_row_gives_the_denoised_estimate(solver: str) -> None:
    assert solver_table(solver, karras_sigmas(5))[-1, 1:].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_first_row_needs_no_previous_estimate(solver: str) -> None:
    assert solver_table(solver, karras_sigmas(5))[0, 3] == 0


def test_only_the_stochastic_solvers_add_noise() -> None:
    noisy = {solver for solver in SOLVERS if solver_table(solver, karras_sigmas(5))[:, 4].any()}
    assert noisy == set(STOCHASTIC)


def test_on_a_geometric_schedule_the_second_order_correction_is_a_half() -> None:
    # Equal steps in lambda: r = 1, so D~ = 3/2 D - 1/2 D_prev (Lu et al. 2022, algorithm 2).
    table = dpmpp_2m_table(np.array([8.0, 4.0, 2.0, 1.0, 0.0]))
    assert table[1:3, 1:4] == pytest.approx(np.array([[0.5, 0.75, -0.25]] * 2), abs=1e-15)


# --- closed-form trajectories ----------------------------------------------------------------------------------


def errors(solver: str) -> np.ndarray:
    """Distance to the probability flow at sigma_min, for each of STEPS. The row to sigma = 0 is left out: it jumps
    to D, off the flow by x sigma_min^2 / (2 s^2) whatever the solver.
    """
    found = []
    for steps in STEPS:
        table = solver_table(solver, karras_sigmas(steps))
        x = 40.0
        found.append(abs(run(table, x)[-2] - exact(x, table[0, 0], table[-1, 0])))
    return np.array(found)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("dpmpp-2m", 2)])
def test_the_order_of_convergence_is_that_of_the_paper(solver: str, order: int) -> None:
    measured = np.log2(errors(solver)[:-1] / errors(solver)[1:])
    # The next term of the error is smaller by the step, so the measured order differs from the true one by about
    # const / steps: halved by each doubling, and below 0.1 at the last.
    assert abs(measured[-1] - order) < 0.1
    assert abs(measured[-1] - order) < 0.75 * abs(measured[-2] - order)


def test_the_second_order_solver_is_the_more_accurate_one() -> None:
    assert (errors("dpmpp-2m") < errors("euler")).all()


def test_the_end_of_the_trajectory_has_the_standard_deviation_of_the_data() -> None:
    table = solver_table("dpmpp-2m", karras_sigmas(128))
    x = math.sqrt(DATA_STD**2 + table[0, 0] ** 2)  # one standard deviation at sigma_max
    # The solver's error up to sigma_min is linear in x; the last jump, to D, loses sigma_min^2 / (2 s^2) of it.
    solver = errors("dpmpp-2m")[STEPS.index(128)] * x / 40
    jump = DATA_STD * table[-1, 0] ** 2 / (2 * DATA_STD**2)
    assert abs(run(table, x)[-1] - DATA_STD) < solver + jump


# --- stochastic solvers ----------------------------------------------------------------------------------------


def variances(solver: str, steps: int, data_std: float) -> tuple[np.ndarray, np.ndarray]:
    """Variance after each row by propagation through the linear update, and the marginal one."""
    sigmas = karras_sigmas(steps)
    # The state and the previous estimate are linear in independent normal values: columns of coefficients.
    x, d = np.zeros(steps + 1), np.zeros(steps + 1)
    x[0] = math.sqrt(data_std**2 + sigmas[0] ** 2)
    found = []
    for i, (sigma, c_x, c_d, c_prev, c_noise) in enumerate(solver_table(solver, sigmas), start=1):
        d_prev, d = d, x * data_std**2 / (data_std**2 + sigma**2)
        x = c_x * x + c_d * d + c_prev * d_prev
        x[i] += c_noise
        found.append(float(x @ x))
    return np.array(found), data_std**2 + sigmas[1:] ** 2


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_stochastic_steps_keep_the_marginal_variance_of_a_point_exactly(solver: str) -> None:
    # All data in one point: D does not depend on x, and each step has variance sigma'^2 by construction.
    found, marginal = variances(solver, 20, 0.0)
    assert found[:-1] == pytest.approx(marginal[:-1], rel=1e-13)  # some ten roundings of 1.1e-16, 20 times
    assert found[-1] == 0


@pytest.mark.parametrize(("solver", "order"), [("euler-ancestral", 1), ("sde-dpmpp-2m", 2)])
def test_stochastic_steps_approach_the_marginal_variance_of_gaussian_data(solver: str, order: int) -> None:
    worst = []
    for steps in (*STEPS, 256):
        found, marginal = variances(solver, steps, DATA_STD)
        worst.append(float(np.max(np.abs(found / marginal - 1)[:-1])))
    measured = np.log2(np.array(worst[:-1]) / np.array(worst[1:]))
    # The next term of the error is smaller by the step: const / steps, halved by each doubling.
    assert abs(measured[-1] - order) < 0.1
    assert abs(measured[-1] - order) < 0.75 * abs(measured[-2] - order)

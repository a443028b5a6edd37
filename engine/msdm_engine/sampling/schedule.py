"""Noise levels and solver tables, computed once on the host in float64.

Every solver is a table of rows ``(sigma, c_x, c_d, c_prev, c_noise)``, one a step:

    x' = c_x x + c_d D(x; sigma) + c_prev D_prev + c_noise z,      z ~ N(0, 1)

so that a new solver is a new table, never a new graph. The last row ends at sigma = 0, where x' = D.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from msdm_engine.errors import RequestError, nearest

SIGMA_MIN, SIGMA_MAX, RHO = 0.01, 40.0, 7.0
MAX_STEPS = 1000


def karras_sigmas(
    steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = RHO
) -> np.ndarray:
    """Noise levels of Karras et al. 2022, equation 5.

    Args:
        steps: 1 to 1000; a single step goes from sigma_max to 0.

    Returns:
        [steps + 1] float64, falling from sigma_max to sigma_min, then 0.

    Raises:
        RequestError: steps out of range, not 0 < sigma_min < sigma_max < infinity and 0 < rho < infinity, or levels
            that float64 cannot tell apart.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise RequestError(f"{steps} steps", note=f"a whole number from 1 to {MAX_STEPS}")
    if not (0 < sigma_min < sigma_max < math.inf and 0 < rho < math.inf):
        raise RequestError(
            f"noise levels from {sigma_max} to {sigma_min}, rho {rho}", note="0 < sigma_min < sigma_max, 0 < rho"
        )
    ramp = np.linspace(0, 1, steps) if steps > 1 else np.zeros(1)
    with np.errstate(all="ignore"):  # an extreme rho leaves the range of float64; it is refused below
        high, low = np.float64(sigma_max) ** (1 / rho), np.float64(sigma_min) ** (1 / rho)
        sigmas = np.append((high + ramp * (low - high)) ** rho, 0.0)
    if not (np.isfinite(sigmas).all() and (np.diff(sigmas) < 0).all()):
        raise RequestError(
            f"{steps} noise levels from {sigma_max} to {sigma_min}, rho {rho}, do not fall from one to the next",
            note="the extremes are too close to one another or rho too far from 1 for float64",
        )
    return sigmas


def euler_table(sigmas: np.ndarray) -> np.ndarray:
    """Euler on the probability-flow ODE dx/dsigma = (x - D) / sigma (equal to DDIM for these variables).

    x' = D + (sigma' / sigma) (x - D).
    """
    ratio = sigmas[1:] / sigmas[:-1]
    zero = np.zeros_like(ratio)
    return np.stack([sigmas[:-1], ratio, 1 - ratio, zero, zero], 1)


def dpmpp_2m_table(sigmas: np.ndarray) -> np.ndarray:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2, in terms of lambda = -ln(sigma).

    With h = lambda' - lambda and r = h_prev / h: D~ = (1 + 1/(2r)) D - 1/(2r) D_prev, and
    x' = (sigma' / sigma) x + (1 - exp(-h)) D~. The first row, and the last one to sigma = 0, are first order.
    """
    table = euler_table(sigmas)
    for i in range(1, len(sigmas) - 2):
        h, h_prev = np.log(sigmas[i] / sigmas[i + 1]), np.log(sigmas[i - 1] / sigmas[i])
        gain, half = -np.expm1(-h), h / (2 * h_prev)
        table[i, 2:4] = gain * (1 + half), -gain * half
    return table


def ancestral_table(sigmas: np.ndarray) -> np.ndarray:
    """Euler ancestral (eta 1): a step down to sigma_down, then fresh noise sigma_up (stochastic).

    sigma_up^2 = sigma'^2 (sigma^2 - sigma'^2) / sigma^2 and sigma_down^2 = sigma'^2 - sigma_up^2, the split for
    which the step has the marginal variance sigma'^2 (Song et al. 2021, DDIM, equation 16 with eta = 1).
    """
    now, following = sigmas[:-1], sigmas[1:]
    up = following * np.sqrt(1 - (following / now) ** 2)
    down = following**2 / now  # sqrt(following^2 - up^2)
    return np.stack([now, down / now, 1 - down / now, np.zeros_like(now), up], 1)


def sde_dpmpp_2m_table(sigmas: np.ndarray) -> np.ndarray:
    """SDE-DPM-Solver++(2M), Lu et al. 2022, section 5.1 (stochastic).

    As :func:`dpmpp_2m_table`, for the diffusion SDE: with h, r and D~ as there,
    x' = (sigma' / sigma) exp(-h) x + (1 - exp(-2h)) D~ + sigma' sqrt(1 - exp(-2h)) z.
    Fresh noise lets later steps mend what earlier, less certain ones got wrong.
    """
    now, following = sigmas[:-1], sigmas[1:]
    keep = (following / now) ** 2  # exp(-2h) = (sigma' / sigma) exp(-h)
    table = np.stack([now, keep, 1 - keep, np.zeros_like(now), following * np.sqrt(1 - keep)], 1)
    for i in range(1, len(sigmas) - 2):
        h, h_prev = np.log(sigmas[i] / sigmas[i + 1]), np.log(sigmas[i - 1] / sigmas[i])
        half = h / (2 * h_prev)
        table[i, 2:4] = (1 - keep[i]) * (1 + half), -(1 - keep[i]) * half
    return table


SOLVERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "euler": euler_table,
    "dpmpp-2m": dpmpp_2m_table,
    "euler-ancestral": ancestral_table,
    "sde-dpmpp-2m": sde_dpmpp_2m_table,
}


def solver_table(solver: str, sigmas: np.ndarray) -> np.ndarray:
    """The table of a solver: [steps, 5] float64, rows as in :data:`msdm_engine.contract.SCHEDULE_ROW`."""
    if solver not in SOLVERS:
        raise RequestError(f"unknown solver '{solver}'", note=nearest(solver, SOLVERS))
    return SOLVERS[solver](sigmas)

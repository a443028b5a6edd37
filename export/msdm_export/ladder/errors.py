"""Differences of one output, and the tolerance that they are held to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from msdm_engine.contract import DENOISER, DENOISER_OUTPUTS, ROW
from msdm_export.conditions import Run, Visit


@dataclass(frozen=True)
class Difference:
    """How far an output is from the reference's.

    Args:
        largest, high: largest absolute difference, and its 99.9th percentile; infinite if a value is not finite.
        relative: L2 norm of the difference over that of the reference.
        rms: root mean square of the difference.
    """

    largest: float
    high: float
    relative: float
    rms: float

    @staticmethod
    def between(found: np.ndarray, expected: np.ndarray) -> Difference:
        """Both of one shape; anything that is not finite in either makes all of it infinite."""
        found, expected = found.astype(np.float64), expected.astype(np.float64)
        if not (np.isfinite(found).all() and np.isfinite(expected).all()):  # NaN would pass every comparison
            return Difference(math.inf, math.inf, math.inf, math.inf)
        error = np.abs(found - expected)
        rms, scale = (float(np.sqrt(np.mean(np.square(values)))) for values in (error, expected))
        relative = rms / scale if scale > 0 else (0.0 if rms == 0 else math.inf)
        return Difference(float(error.max()), float(np.percentile(error, 99.9)), relative, rms)


@dataclass(frozen=True)
class Tolerance:
    """Bounds of a rung: from how often its format rounds, not from a table of numbers.

    One rounding moves a value by at most u of itself, u being the format's unit roundoff. Roundings are independent
    of one another to a good approximation, so L of them in a row move a value by about u sqrt(L) (Higham and Mary
    2019, "A new approach to probabilistic rounding error analysis"). The bound on the root mean square of a difference
    is ``factor`` times that, of the output's root mean square; and never less than :data:`OWN_ERRORS` times what
    float32 itself lost in the reference, measured against float64.

    Args:
        roundoff: u.
        depths: L of each output of each graph.
        factor: in hand for what the model leaves out; see :data:`msdm_export.ladder.rungs.FACTORS`.
        state_std: sigma_data, root mean square over the state's channels.
    """

    roundoff: float
    depths: Mapping[str, Mapping[str, int]]
    factor: float
    state_std: float

    def of(self, visit: Visit, output: str) -> float:
        """Largest root mean square of the difference of an output, in its own units."""
        depth = max(self.depths[visit.graph].get(output, 0), 1)
        share = self.factor * self.roundoff * math.sqrt(depth)
        if visit.graph != DENOISER:
            # An output whose terms cancel has lost digits in the reference, too: nothing agrees better than that.
            return max(share * _rms(visit.outputs[output]), OWN_ERRORS * visit.rounding.get(output, 0.0))
        # D = mean + c_skip x + c_out F: the network's error enters D scaled by c_out, which is
        # sigma / sqrt(sigma^2 + sigma_data^2) of what it is at the highest level; and x' holds c_d times D.
        following, denoised = DENOISER_OUTPUTS
        sigma, c_d = float(visit.inputs[ROW][0]), float(visit.inputs[ROW][2])
        bound = share * _rms(visit.outputs[denoised]) * sigma / math.hypot(sigma, self.state_std)
        # Both are float32 at the end: nothing is closer than its own rounding.
        own = 2.0**-23 * _rms(visit.outputs[output])
        return (abs(c_d) * bound if output == following else bound) + own


#: Another float32 implementation errs about as the reference does, independently: sqrt(2) of its error, and room for
#: another order of summation.
OWN_ERRORS = 4.0

#: Percentile and maximum over the root mean square. For a Gaussian 3.3 and, over a million values, 5; but an error
#: grows with the value it belongs to, and values have tails of their own, so that both get about four times as much.
HIGH_OVER_RMS, LARGEST_OVER_RMS = 12.0, 40.0


def with_rounding(visit: Visit, exact: Run) -> Visit:
    """The visit with the reference's own error: its outputs against those of float64 from the same inputs."""
    found = exact(visit.graph, visit.inputs)
    return replace(visit, rounding={name: Difference.between(visit.outputs[name], found[name]).rms for name in found})


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values.astype(np.float64)))))

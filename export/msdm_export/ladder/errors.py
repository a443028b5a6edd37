"""Differences of one output, and the tolerance that they are held to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from msdm_engine.contract import DENOISER, DENOISER_OUTPUTS, ROW
from msdm_export.conditions import Visit


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
    is ``factor`` times that, of the output's root mean square: the largest among outputs of one family, such as
    ``map_features_0`` to ``map_features_3``. A sigmoid is computed to u of one, not to u of a value near zero, so that
    features which are nearly switched off cannot be as exact as their own size asks for.

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
            family = output.rstrip("0123456789")
            return share * max(_rms(value) for name, value in visit.outputs.items() if name.startswith(family))
        # D = mean + c_skip x + c_out F: the network's error enters D scaled by c_out, which is
        # sigma / sqrt(sigma^2 + sigma_data^2) of what it is at the highest level; and x' holds c_d times D.
        following, denoised = DENOISER_OUTPUTS
        sigma, c_d = float(visit.inputs[ROW][0]), float(visit.inputs[ROW][2])
        bound = share * _rms(visit.outputs[denoised]) * sigma / math.hypot(sigma, self.state_std)
        # Both are float32 at the end: nothing is closer than its own rounding.
        own = 2.0**-23 * _rms(visit.outputs[output])
        return (abs(c_d) * bound if output == following else bound) + own


#: Percentile and maximum over the root mean square. For a Gaussian 3.3 and, over a million values, 5; but an error
#: grows with the value it belongs to, and values have tails of their own, so that both get about four times as much.
HIGH_OVER_RMS, LARGEST_OVER_RMS = 12.0, 40.0


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values.astype(np.float64)))))

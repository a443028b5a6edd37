"""What float16 can hold, as far as ranges decide it."""

from __future__ import annotations

import numpy as np

from msdm_calibration.ranges.histogram import MIDDLES

#: Largest value, smallest normal number, smallest number above zero (a subnormal).
LARGEST, NORMAL, SUBNORMAL = 65504.0, 2.0**-14, 2.0**-24
#: Largest relative change of a normal number when it is rounded.
ROUNDOFF = 2.0**-11

#: Mean square of what rounding takes from the values of a bin below the normal numbers: a uniform error of half a
#: step on either side has the variance step^2 / 12; what is smaller than half a step is lost whole.
_LOST = np.where(MIDDLES < NORMAL, np.minimum(MIDDLES**2, SUBNORMAL**2 / 12), 0.0)
_LOST[MIDDLES < SUBNORMAL / 2] = MIDDLES[MIDDLES < SUBNORMAL / 2] ** 2


def underflow_loss(counts: np.ndarray, squares: float) -> float:
    """Relative L2 norm of what float16 takes from a tensor below its normal numbers, estimated from the histogram.

    Rounding of normal numbers is left out: it is at most :data:`ROUNDOFF`, which is what this is compared with.

    Args:
        counts: histogram of the magnitudes.
        squares: sum of squares of the values.
    """
    return float(np.sqrt(counts @ _LOST / squares)) if squares > 0 else 0.0

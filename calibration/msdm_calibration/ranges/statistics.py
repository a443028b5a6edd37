"""Running statistics of a graph's activations at each noise level: memory does not grow with the number of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from msdm_calibration.marked import Activation
from msdm_calibration.ranges.float16 import underflow_loss
from msdm_calibration.ranges.histogram import BINS, MagnitudeCounter
from msdm_calibration.ranges.moments import moments_of


def channel_axis(activation: Activation) -> int | None:
    """The axis that a convolution or matrix product sums over, or None if none reads the activation.

    An activation read by several has the axis of the first.
    """
    for _, op, position in activation.readers:
        if op in {"Conv", "ConvTranspose"} and position == 0:
            return 1
        if op in {"MatMul", "Gemm"} and position in (0, 1):
            return -1 if position == 0 else -2
    return None


@dataclass
class GraphStatistics:
    """Statistics of one graph.

    Args:
        activations: what is measured, in this order.
        levels: noise levels; 1 for a graph that does not run at every step.

    Attributes:
        counts: [A, L, BINS] histogram of magnitudes.
        non_finite: [A, L] values that are not finite; they are in no other number.
        low, high: [A, L] extrema; infinite where nothing was seen.
        total, squares: [A, L] sums of values and of squares.
        lost: [A, L] largest :func:`underflow_loss` of any one visit.
        channels: tensor -> [L, C] largest magnitude of each channel, for what convolutions and matrix products read.
    """

    activations: Sequence[Activation]
    levels: int
    counts: np.ndarray = field(init=False)
    non_finite: np.ndarray = field(init=False)
    low: np.ndarray = field(init=False)
    high: np.ndarray = field(init=False)
    total: np.ndarray = field(init=False)
    squares: np.ndarray = field(init=False)
    lost: np.ndarray = field(init=False)
    channels: dict[str, np.ndarray] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.activations), self.levels)
        self.counts = np.zeros((*shape, BINS), np.int64)
        self.non_finite = np.zeros(shape, np.int64)
        self.low, self.high = np.full(shape, np.inf), np.full(shape, -np.inf)
        self.total, self.squares, self.lost = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._axes = [channel_axis(activation) for activation in self.activations]
        self._counter = MagnitudeCounter()

    def add(self, level: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes one visit into account.

        Args:
            arrays: every activation by name, float32.
        """
        for i, activation in enumerate(self.activations):
            values = arrays[activation.tensor]
            if values.size:
                self._add(i, level, values)

    def _add(self, i: int, level: int, values: np.ndarray) -> None:
        at, axis = (i, level), self._axes[i]
        moments = moments_of(values, axis, self._counter)
        self.non_finite[at] += moments.non_finite
        self.counts[at] += moments.counts
        self.low[at], self.high[at] = min(self.low[at], moments.low), max(self.high[at], moments.high)
        self.total[at] += moments.total
        self.squares[at] += moments.squares
        self.lost[at] = max(self.lost[at], underflow_loss(moments.counts, moments.squares))
        if moments.channels is not None:
            self._add_channels(self.activations[i].tensor, level, moments.channels)

    def _add_channels(self, tensor: str, level: int, largest: np.ndarray) -> None:
        known = self.channels.setdefault(tensor, np.zeros((self.levels, len(largest)), np.float32))
        np.maximum(known[level], largest, out=known[level])

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that was measured, by name."""
        names = ("counts", "non_finite", "low", "high", "total", "squares", "lost")
        return {
            **{name: getattr(self, name) for name in names},
            **{f"channels/{tensor}": value for tensor, value in self.channels.items()},
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes on from :meth:`arrays` of equal activations and levels."""
        for name, value in arrays.items():
            if name.startswith("channels/"):
                self.channels[name.removeprefix("channels/")] = value
            else:
                setattr(self, name, value)

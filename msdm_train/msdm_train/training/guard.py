"""Stops a run that diverges, before it overwrites its last good checkpoint."""

from __future__ import annotations

import math
from collections import deque
from statistics import median


class Guard:
    """Watches the loss of each step.

    The rule: the median of the last ``window`` losses is compared with the lowest such median since the process
    began; above ``factor`` times that the run has diverged. A median over some 50 steps passes over single hard
    batches, which scatter by a factor of five. ``factor`` 0 turns the rule off; a loss that is not finite always
    counts. While the median of the last fifth of a window is above that bound no checkpoint is written, so that the
    last one is from before the trouble. The memory is that of the process: a resumed run begins to watch anew.
    """

    def __init__(self, factor: float, window: int) -> None:
        self.factor, self._losses, self._lowest = factor, deque[float](maxlen=window), math.inf

    def finding(self, loss: float) -> str | None:
        """Takes in a loss; what is wrong, in words, or None."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        self._losses.append(loss)
        if len(self._losses) < (self._losses.maxlen or 0):
            return None
        now = median(self._losses)
        self._lowest = min(self._lowest, now)
        if self.factor and now > self.factor * self._lowest:
            return (
                f"the loss has diverged: its median over {len(self._losses)} steps is {now:.4g}, "
                f"it was {self._lowest:.4g}"
            )
        return None

    @property
    def suspicious(self) -> bool:
        """Whether the latest losses look like the begin of a divergence."""
        latest = list(self._losses)[-max(1, (self._losses.maxlen or 0) // 5) :]
        return bool(self.factor and latest and median(latest) > self.factor * self._lowest)

    def began_anew(self) -> None:
        """Losses from here on are of another kind (crops of another size)."""
        self._losses.clear()
        self._lowest = math.inf

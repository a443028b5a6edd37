"""What decides the shapes of a run: size, batch, rows of the table, branches of guidance; and its segments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdm_engine.bundle.manifest import Sampling
from msdm_engine.sampling.guidance import WITHOUT, Guidance

#: Leaves out everything that a request may say: its conditions are the same for all.
EVERYTHING = WITHOUT["none"]


@dataclass(frozen=True)
class Setting:
    """One compiled shape.

    Args:
        height_px, width_px: of the pictures; the graphs see the next multiples of their strides.
        batch: pairs in a run of the denoiser.
        rows: the solver's table as float32 values, see ``contract.SCHEDULE_ROW``.
        sigma_max: of the first row, in float64: the initial state is this times the noise.
        branches: names and weights as :meth:`Guidance.branches` gives them.
        guided: for each row whether all branches run; else the first runs alone.
        critic: whether finished pictures are shown to the critic.
    """

    height_px: int
    width_px: int
    batch: int
    rows: tuple[tuple[float, ...], ...]
    sigma_max: float
    branches: tuple[tuple[str, float], ...]
    guided: tuple[bool, ...]
    critic: bool

    @staticmethod
    def of(size: tuple[int, int], batch: int, sampling: Sampling, guidance: Guidance, critic: bool) -> Setting:
        """The setting of pairs of one size.

        Args:
            size: height and width in px.
            batch: may be smaller than the sampling's, where that does not fit the memory.
        """
        table = sampling.table()
        return Setting(
            *size,
            batch,
            tuple(map(tuple, table.astype(np.float32).tolist())),
            float(table[0, 0]),
            guidance.branches(),
            tuple(guidance.acts_at(float(np.float32(sigma))) for sigma in table[:, 0]),
            critic,
        )

    @property
    def kept(self) -> bool:
        """Whether the last branch depends on no request, so that its conditions are computed once and kept."""
        return len(self.branches) > 1 and WITHOUT[self.branches[-1][0]] == EVERYTHING

    @property
    def own_branches(self) -> tuple[str, ...]:
        """Names of the branches whose conditions are computed for each batch."""
        return tuple(name for name, _ in self.branches[: -1 if self.kept else None])

    def branches_of(self, row: int) -> int:
        """How many branches this row runs."""
        return len(self.branches) if self.guided[row] else 1

    def is_noisy(self, row: int) -> bool:
        """Whether this row adds fresh noise."""
        return self.rows[row][4] != 0


@dataclass(frozen=True)
class Segment:
    """Rows ``first`` to ``last`` (not included) of the table, which run the same branches: one captured graph.

    Args:
        noisy: those of the rows that add fresh noise, whose noise must be there before the segment begins.
    """

    first: int
    last: int
    noisy: tuple[int, ...]


def segments(setting: Setting, longest: int) -> tuple[Segment, ...]:
    """Cuts the trajectory where the number of branches changes, and after ``longest`` rows at most."""
    cuts = [0]
    for row in range(1, len(setting.rows)):
        if setting.branches_of(row) != setting.branches_of(row - 1) or row - cuts[-1] == longest:
            cuts.append(row)
    ends = [*cuts[1:], len(setting.rows)]
    return tuple(
        Segment(first, last, tuple(row for row in range(first, last) if setting.is_noisy(row)))
        for first, last in zip(cuts, ends, strict=True)
    )

"""What one measurement of ranges was asked for, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msdm_calibration.data import SPLITS
from msdm_engine.errors import RequestError

MAX_BATCH = 64
MAX_BARE = 10_000


@dataclass(frozen=True)
class RangeSettings:
    """Settings of ``msdm-calibrate ranges``.

    Args:
        bundle: folder of the bundle; None: the reference bundle.
        data: packed data set.
        out: folder of the report; an interrupted measurement goes on here.
        windows: real windows, each with all its conditions.
        size_px: their side.
        steps: None: the bundle's own.
        seed: of the windows and of the noise.
        splits: ``train``, ``val`` or both.
        batch: pairs at once, 1 to 64: what the memory of a run grows with.
        bare: pairs without any condition after the windows, 0 to 10,000: guidance and invented layouts run the
            network so.
        threads: CPU threads; numbers are equal to the last digit for equal threads only.

    Raises:
        RequestError: a value out of range. Windows, size and splits are checked where the data are read, and steps
            by the bundle's sampling.
    """

    bundle: Path | None
    data: Path
    out: Path
    windows: int = 200
    size_px: int = 128
    steps: int | None = None
    seed: int = 0
    splits: Sequence[str] = SPLITS
    batch: int = 2
    bare: int = 8
    threads: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (("batch", 1, MAX_BATCH), ("bare", 0, MAX_BARE), ("threads", 1, 1024)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise RequestError(f"{name} {value}", note=f"{low} to {high}")
        if not 0 <= self.seed < 2**64:
            raise RequestError(f"seed {self.seed}", note="0 to 2^64 - 1")

"""What one evaluation was asked for, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msdm_engine.contract import FLOAT32
from msdm_engine.errors import RequestError
from msdm_engine.pairs import MAX_SIDE_PX, MIN_SIDE_PX

MAX_SEEDS = 16


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of ``msdm-train evaluate``.

    Args:
        bundle: folder of the bundle.
        data: packed data set.
        split: ``val`` or ``test``; what is scored.
        out: folder of the report; an interrupted evaluation resumes here.
        side_px: side of the pictures, 16 to 4096.
        seeds: pairs for each real window, 1 to 16; None: 1 with ``quick``, else 2.
        seed: of everything that is drawn.
        quick: fewer windows and resamplings.
        evaluator: folder of the segmenter; None: sections that need it are refused.
        encoder: name of the encoder, see ``msdm-train evaluate --help``.
        usefulness: folder of a finished usefulness run; None: that section is refused.
        precision: of the bundle's graphs.
        only: names of the sections that are measured; empty: all.
        threads: CPU threads of the engine; pixels are bit-equal for equal threads only. 0: one for each core.

    Raises:
        RequestError: a value out of range.
    """

    bundle: Path
    data: Path
    split: str
    out: Path
    side_px: int = 128
    seeds: int | None = None
    seed: int = 0
    quick: bool = False
    evaluator: Path | None = None
    encoder: str = "lite0"
    usefulness: Path | None = None
    threads: int = 0
    precision: str = FLOAT32
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.split not in ("val", "test"):
            raise RequestError(f"split '{self.split}'", note="val or test; the generator has seen train")
        if not MIN_SIDE_PX <= self.side_px <= MAX_SIDE_PX:
            raise RequestError(f"size {self.side_px} px", note=f"{MIN_SIDE_PX} to {MAX_SIDE_PX}")
        if self.seeds is not None and not 1 <= self.seeds <= MAX_SEEDS:
            raise RequestError(f"{self.seeds} seeds", note=f"1 to {MAX_SEEDS}")

    @property
    def seeds_used(self) -> int:
        """Pairs for each real window."""
        return self.seeds or (1 if self.quick else 2)

    @property
    def real_windows(self) -> int:
        """Most windows of the split that are scored."""
        return 24 if self.quick else 400

    @property
    def train_windows(self) -> int:
        """Windows of train whose conditions lend pairs to the memorisation section."""
        return 24 if self.quick else 96

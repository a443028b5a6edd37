"""What one quantisation was asked for, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msdm_calibration.quantize.grids import grid_named
from msdm_engine.contract import FLOAT32
from msdm_engine.errors import RequestError, nearest

#: Precisions that the rest of a quantised graph can be in. TensorRT multiplies quickest beside HALF; FLOAT is what
#: ONNX Runtime's CPU has fast arithmetic for.
RESTS = (FLOAT32, "fp16")
MAX_BATCH = 64


@dataclass(frozen=True)
class QuantizeSettings:
    """Settings of ``msdm-calibrate quantize``.

    Args:
        bundle: folder of the bundle.
        to: ``int8`` or ``fp8``.
        data: packed data set; its split train, which the bundle was trained on, gives the conditions.
        state: folder of what is kept of an interrupted calibration.
        windows: real windows that trajectories are followed for.
        size_px: their side; None: the bundle's own size.
        steps: of the trajectories; None: the bundle's own.
        seed: of the windows and of the noise.
        batch: pairs at once, 1 to 64: what memory grows with.
        threads: CPU threads; scales are equal to the bit for equal threads only.
        rest: precision of what is not quantised; None: ``fp16`` where the bundle has it, else ``float32``.

    Raises:
        RequestError: an unknown precision, or a value out of range.
    """

    bundle: Path
    to: str
    data: Path
    state: Path
    windows: int = 32
    size_px: int | None = None
    steps: int | None = None
    seed: int = 0
    batch: int = 2
    threads: int = 1
    rest: str | None = None

    def __post_init__(self) -> None:
        grid_named(self.to)
        for name, low, high in (("batch", 1, MAX_BATCH), ("threads", 1, 1024)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise RequestError(f"{name} {value}", note=f"{low} to {high}")
        if self.rest is not None and self.rest not in RESTS:
            raise RequestError(f"unknown precision '{self.rest}' of the rest", note=nearest(self.rest, RESTS))

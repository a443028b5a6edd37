"""The grids of INT8 and FP8 E4M3: which values there are, and rounding to them as QuantizeLinear rounds."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from onnx import TensorProto

from msdm_engine.errors import RequestError, nearest

#: From here on a graph may hold FP8 (opset 19 has QuantizeLinear to it), and half scales (opset 19 too).
LEAST_OPSET = 19


@dataclass(frozen=True)
class Grid:
    """A symmetric grid, zero at zero.

    Args:
        name: as on the command line and in the manifest.
        onnx_type: element type of ONNX.
        lowest, largest: of its values, in units of a scale.
        least_capability: compute capability whose tensor cores multiply in it.
    """

    name: str
    onnx_type: int
    dtype: np.dtype
    lowest: float
    largest: float
    least_capability: tuple[int, int]

    def codes(self, values: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
        """What is stored: rounded to even, saturated; ``scale`` broadcasts."""
        scaled = np.clip(np.asarray(values, np.float32) / scale, self.lowest, self.largest)
        return (np.rint(scaled) if self.dtype == np.int8 else scaled).astype(self.dtype)

    def rounded(self, values: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
        """Quantised and dequantised again: float32."""
        return self.codes(values, scale).astype(np.float32) * np.asarray(scale, np.float32)


GRIDS = {
    # QuantizeLinear saturates to -128: one value more below zero than above.
    "int8": Grid("int8", TensorProto.INT8, np.dtype(np.int8), -128.0, 127.0, (6, 1)),
    "fp8": Grid("fp8", TensorProto.FLOAT8E4M3FN, np.dtype(ml_dtypes.float8_e4m3fn), -448.0, 448.0, (8, 9)),
}


def grid_named(name: str) -> Grid:
    """The grid of that name.

    Raises:
        RequestError: there is none.
    """
    if name not in GRIDS:
        raise RequestError(
            f"unknown precision '{name}' to quantise to", note=nearest(name, GRIDS), hint="--to int8 or --to fp8"
        )
    return GRIDS[name]

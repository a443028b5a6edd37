"""The half formats that a graph can be typed in."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from onnx import TensorProto

from msdm_engine.contract import FLOAT32
from msdm_engine.errors import RequestError, nearest


@dataclass(frozen=True)
class Format:
    """A 16-bit floating-point format.

    Args:
        name: as on the command line and in the manifest.
        onnx_type: element type of ONNX.
        largest: largest finite value.
        roundoff: largest relative change when a normal number is rounded.
        handed_on: whether tensors that one graph hands to the next are kept in it.
    """

    name: str
    onnx_type: int
    dtype: np.dtype
    largest: float
    roundoff: float
    handed_on: bool


#: What the graphs are exported in, described in the same terms.
SINGLE = Format(
    FLOAT32, TensorProto.FLOAT, np.dtype(np.float32), float(np.finfo(np.float32).max), 2.0**-24, handed_on=True
)

FORMATS = {
    "fp16": Format("fp16", TensorProto.FLOAT16, np.dtype(np.float16), 65504.0, 2.0**-11, handed_on=True),
    # NumPy has no bfloat16, and the engine passes these tensors as NumPy arrays: between graphs they are float32.
    "bf16": Format(
        "bf16",
        TensorProto.BFLOAT16,
        np.dtype(ml_dtypes.bfloat16),
        float(ml_dtypes.finfo(ml_dtypes.bfloat16).max),
        2.0**-8,
        handed_on=False,
    ),
}


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        RequestError: no such format.
    """
    if name not in FORMATS:
        note = "graphs are float32 as exported" if name == FLOAT32 else nearest(name, FORMATS)
        raise RequestError(f"unknown precision '{name}'", note=note, hint="--to fp16 or --to bf16")
    return FORMATS[name]

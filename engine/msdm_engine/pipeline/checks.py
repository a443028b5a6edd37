"""A bundle is untrusted: what its graphs give out is checked for shape, type and finite values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msdm_engine.errors import BackendError, NumericsError
from msdm_engine.pairs import PairRequest


def check_output(graph: str, name: str, value: object, shape: tuple[int, ...]) -> np.ndarray:
    """The output, if it is an array of floats of this shape; else a BackendError that says what it is."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.shape == shape:
        return value
    found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
    raise BackendError(
        f"graph '{graph}' gave {found} as '{name}'",
        note=f"floats of the shape {shape}",
        hint="export the bundle again",
    )


def finite_rows(value: np.ndarray) -> np.ndarray:
    """[B, ...] float -> [B] bool: whether all values of a pair are finite."""
    rows: np.ndarray = np.isfinite(value.reshape(len(value), -1)).all(1)
    return rows


def check_finite(graph: str, finite: np.ndarray, requests: Sequence[PairRequest], where: str) -> None:
    """Raises NumericsError for the first pair whose values are not.

    Args:
        finite: [B] of :func:`finite_rows`; more than there are requests fill a short batch up.
    """
    for request, good in zip(requests, finite, strict=False):
        if not good:
            raise NumericsError(
                f"graph '{graph}' gave a value that is not finite: pair {request.index}, seed {request.seed}, {where}",
                note="pairs before this batch are complete",
                hint="check the bundle's precision, or lower the guidance",
            )

"""Shapes of a graph's tensors, from the manifest: ``16*rows`` and what ``rows`` is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from msdm_engine.errors import BundleError
from msdm_engine.manifest import TensorSpec

DTYPES = {"float32": np.float32, "float16": np.float16, "int64": np.int64}
_DIMENSION = re.compile(r"(?:(\d+)\*)?([A-Za-z_]\w*)")

Shape = tuple[int, ...]


def dtype_of(graph: str, tensor: TensorSpec) -> np.dtype:
    """The tensor's type on the host; a BundleError if it is none that a graph of a bundle may have."""
    if tensor.dtype not in DTYPES:
        raise BundleError(
            f"'{tensor.name}' of the graph '{graph}' is of the type {tensor.dtype}", note=f"legal: {', '.join(DTYPES)}"
        )
    return np.dtype(DTYPES[tensor.dtype])


def dimensions_of(graph: str, tensors: Iterable[TensorSpec], known: Mapping[str, Shape]) -> dict[str, int]:
    """Values of the named dimensions, from the tensors whose shapes are known.

    Raises:
        BundleError: a shape does not fit the manifest's, or two of them contradict one another.
    """
    found: dict[str, int] = {}
    for tensor in tensors:
        shape = known.get(tensor.name)
        if shape is None:
            continue
        fits = len(shape) == len(tensor.shape)
        for size, dimension in zip(shape, tensor.shape, strict=False):
            times, name = _parse(graph, tensor, dimension)
            if name is None:
                fits = fits and size == times
            else:
                fits = fits and size % times == 0 and found.setdefault(name, size // times) == size // times
        if not fits:
            raise BundleError(
                f"'{tensor.name}' of the graph '{graph}' has the shape {shape}",
                note=f"the manifest says {tensor.shape}",
                hint="export the bundle again",
            )
    return found


def shape_of(graph: str, tensor: TensorSpec, dimensions: Mapping[str, int]) -> Shape:
    """The tensor's shape; a BundleError if nothing that the engine feeds decides one of its dimensions."""
    shape = []
    for dimension in tensor.shape:
        times, name = _parse(graph, tensor, dimension)
        if name is not None and name not in dimensions:
            raise BundleError(
                f"'{tensor.name}' of the graph '{graph}' has the dimension '{dimension}', which nothing decides",
                note=f"known: {', '.join(dimensions)}",
                hint="export the bundle again",
            )
        shape.append(times if name is None else times * dimensions[name])
    return tuple(shape)


def _parse(graph: str, tensor: TensorSpec, dimension: int | str) -> tuple[int, str | None]:
    """``16*rows`` -> (16, "rows"); 6 -> (6, None)."""
    if isinstance(dimension, int):
        return dimension, None
    match = _DIMENSION.fullmatch(dimension)
    if match is None or match[1] == "0":
        raise BundleError(f"'{tensor.name}' of the graph '{graph}' has the dimension '{dimension}'", note="as 16*rows")
    return int(match[1] or 1), match[2]

"""Dynamic dimensions of a graph: their values from shapes, and shapes from their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msdm_engine.bundle.manifest import TensorSpec
from msdm_engine.errors import BundleError, RequestError

Shape = tuple[int, ...]


def split_dimension(dimension: str, graph: str) -> tuple[int, str]:
    """``16*rows`` -> (16, "rows"); ``rows`` -> (1, "rows")."""
    factor, _, name = dimension.rpartition("*")
    if not (factor or "1").isdecimal() or len(factor) > 6 or int(factor or "1") == 0:
        raise BundleError(f"graph '{graph}' has the dimension '{dimension}'", note="a name, with a factor as in 4*rows")
    return int(factor or "1"), name


def shapes_of(graph: str, tensors: Iterable[TensorSpec], dimensions: Mapping[str, int]) -> dict[str, Shape]:
    """Shape of each tensor of a graph where its dynamic dimensions have these values.

    Raises:
        BundleError: a dimension is not among them.
    """

    def value(dimension: int | str) -> int:
        if isinstance(dimension, int):
            return dimension
        factor, name = split_dimension(dimension, graph)
        if name not in dimensions:
            raise BundleError(
                f"the graph '{graph}' has the dimension '{dimension}', which nothing that it is given decides",
                note=f"decided: {', '.join(dimensions)}",
                hint="export the bundle again",
            )
        return factor * dimensions[name]

    return {tensor.name: tuple(value(dimension) for dimension in tensor.shape) for tensor in tensors}


def dimensions_of(graph: str, tensors: Iterable[TensorSpec], shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Value of each dynamic dimension, from the shapes of the tensors.

    Raises:
        RequestError: a tensor is missing, or its shape is none that the graph has; names tensor, shape and what is
            legal.
    """
    found: dict[str, int] = {}
    for tensor in tensors:
        shape = shapes.get(tensor.name)
        if shape is None or len(shape) != len(tensor.shape):
            raise _illegal(graph, tensor, shape, found)
        for size, dimension in zip(shape, tensor.shape, strict=True):
            factor, name = (1, "") if isinstance(dimension, int) else split_dimension(dimension, graph)
            expected = dimension if isinstance(dimension, int) else factor * found.setdefault(name, size // factor)
            if size != expected or size < 1:
                raise _illegal(graph, tensor, shape, found)
    return found


def _illegal(graph: str, tensor: TensorSpec, shape: Shape | None, found: dict[str, int]) -> RequestError:
    given = "is not given" if shape is None else f"has the shape {list(shape)}"
    known = ", ".join(f"{name} {value}" for name, value in found.items())
    return RequestError(
        f"'{tensor.name}' of the graph '{graph}' {given}",
        note=f"it is {list(tensor.shape)}{known and f', and here {known}'}",
    )

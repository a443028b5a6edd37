"""Where each weight of a model lies in the exported graphs, so that training can go on from a bundle alone."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper
from torch import nn


def locate_weights(model: nn.Module, graphs: dict[str, bytes]) -> dict[str, list[str]]:
    """Finds every parameter among the initializers of the graphs, by value.

    The exporter renames, transposes and flattens weights as its graph rewrites need; names cannot be relied on.

    Returns:
        for each parameter its graph, its initializer, and ``same``, ``transposed`` or ``reshaped``.

    Raises:
        ValueError: a parameter is in no graph: the exporter has folded it into something else.
    """
    by_size: dict[int, list[tuple[str, str, np.ndarray]]] = {}
    for graph, data in graphs.items():
        for initializer in onnx.load_from_string(data).graph.initializer:
            if initializer.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
                values = numpy_helper.to_array(initializer).astype(np.float32)
                by_size.setdefault(values.size, []).append((graph, initializer.name, values))
    found = {}
    for name, parameter in model.named_parameters():
        wanted = parameter.detach().numpy()
        for graph, initializer_name, values in by_size.get(wanted.size, []):
            form = _form(wanted, values)
            if form:
                found[name] = [graph, initializer_name, form]
                break
        else:
            raise ValueError(f"weight {name} {wanted.shape} is in no exported graph")
    return found


def _form(wanted: np.ndarray, values: np.ndarray) -> str | None:
    if values.shape == wanted.shape and np.array_equal(values, wanted):
        return "same"
    if wanted.ndim == 2 and values.shape == wanted.T.shape and np.array_equal(values, wanted.T):
        return "transposed"
    return "reshaped" if np.array_equal(values.ravel(), wanted.ravel()) else None

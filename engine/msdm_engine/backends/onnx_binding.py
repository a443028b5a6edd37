"""ONNX Runtime's tensors bound to the memory of buffers, so that a run allocates no output and copies nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from msdm_engine.devices.contract import Buffer
from msdm_engine.errors import BackendError, DeviceError

#: ONNX Runtime's names of the types that the graphs of a bundle have at their ends.
TYPES = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
}

Bound = tuple[Any, tuple[Buffer, ...], tuple[Buffer, ...]]


def bind_session(session: Any, graph: str, place: tuple[str, int], buffers: Mapping[str, Buffer]) -> Bound:
    """The session's IO binding by addresses, and the buffers of its inputs and outputs.

    Args:
        place: ONNX Runtime's name of the device on which the buffers lie, and its number.

    Raises:
        BackendError: ONNX Runtime refuses a buffer.
        DeviceError: one is missing, or of another type or shape.
    """
    binding = session.io_binding()
    sides: list[tuple[Buffer, ...]] = []
    for tensors, bind in (
        (session.get_inputs(), binding.bind_input),
        (session.get_outputs(), binding.bind_output),
    ):
        sides.append(tuple(_buffer_of(graph, tensor, buffers) for tensor in tensors))
        for tensor, buffer in zip(tensors, sides[-1], strict=True):
            try:
                bind(tensor.name, *place, buffer.dtype, buffer.shape, buffer.pointer)
            except Exception as error:  # ONNX Runtime raises its own classes, derived from Exception only
                raise BackendError(
                    f"ONNX Runtime refuses a buffer for '{tensor.name}' of the graph '{graph}': {error}"
                ) from error
    return binding, sides[0], sides[1]


def _buffer_of(graph: str, tensor: Any, buffers: Mapping[str, Buffer]) -> Buffer:
    """The buffer of a tensor; ONNX Runtime would read past its end or take bits of another type for what they are not.

    Raises:
        DeviceError: it is missing, or of another type or rank.
    """
    buffer = buffers.get(tensor.name)
    if buffer is None:
        raise DeviceError(f"no buffer for '{tensor.name}' of the graph '{graph}'", note=f"given: {', '.join(buffers)}")
    wanted = TYPES.get(tensor.type)
    fits = len(buffer.shape) == len(tensor.shape) and all(
        size == known for size, known in zip(buffer.shape, tensor.shape, strict=True) if isinstance(known, int)
    )
    if buffer.dtype != wanted or not fits:
        raise DeviceError(
            f"the buffer '{buffer.name}' of {buffer.dtype} {buffer.shape} is no '{tensor.name}' of the graph '{graph}'",
            note=f"that is {tensor.type} {tuple(tensor.shape)}",
        )
    return buffer

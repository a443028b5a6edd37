"""Whether an ONNX model keeps weights in other files, found without parsing it whole.

A bundle is verified in memory, so a file that a graph names would be read unverified; and ONNX Runtime looks for it
in the working directory. The walk follows the protobuf wire format and the messages of ``onnx.proto`` that can hold
a tensor; everything else is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

from msdm_engine.errors import BackendError, BundleError

#: Message -> field number -> message of that field, from onnx.proto.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
#: Graphs within graphs; protobuf itself stops at 100 messages, three of which make one.
_MAX_DEPTH = 100
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_is_whole(name: str, graph: bytes) -> None:
    """A graph that is no ONNX model, or names other files, goes to no parser.

    Raises:
        BackendError, BundleError.
    """
    try:
        external = has_external_data(graph)
    except ValueError as error:
        raise BackendError(
            f"the graph '{name}' cannot be loaded: it is no ONNX model ({error})", hint="export the bundle again"
        ) from error
    if external:
        raise BundleError(
            f"graph '{name}' keeps weights in another file",
            note="a graph of a bundle holds its weights itself, so that its hash covers them",
            hint="export the bundle again",
        )


def has_external_data(model: bytes) -> bool:
    """Whether any tensor of the model lies in another file.

    Raises:
        ValueError: not in the protobuf wire format.
    """
    pending = [("model", memoryview(model), 0)]
    while pending:
        message, data, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("messages are nested too deeply")
        for number, value in _fields(data):
            if message == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
                return True
            if isinstance(value, memoryview) and number in _MESSAGES[message]:
                pending.append((_MESSAGES[message][number], value, depth + 1))
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number of each field, and its integer or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind not in (_FIXED64, _BYTES, _FIXED32):
            raise ValueError(f"wire type {kind} at byte {at}")
        length = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
        if kind == _BYTES:
            length, at = _varint(data, at)
        if at + length > len(data):
            raise ValueError("it is truncated")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it is truncated")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number at byte {at} is too long")

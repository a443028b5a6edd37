"""Graphs that name other files are refused. The models here are written byte by byte in the protobuf wire format."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from msdm_engine import Bundle
from msdm_engine.backends.onnx_external import has_external_data


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


#: Fields of a TensorProto: dims, data_type, name, raw_data; location and external_data.
INSIDE = field(1, 4) + field(2, 1) + field(8, b"w") + field(9, bytes(16))
LOCATED = INSIDE + field(14, 1)
NAMED = INSIDE + field(13, field(1, b"location") + field(2, b"weights.bin"))


def model(graph: bytes) -> bytes:
    return field(1, 9) + field(7, graph) + field(8, field(2, 21))


def node(attribute: bytes) -> bytes:
    return field(1, field(1, b"x") + field(4, b"Constant") + field(5, attribute))


PLACES = {
    "weight": lambda tensor: model(field(5, tensor)),
    "sparse weight": lambda tensor: model(field(15, field(1, tensor))),
    "indices": lambda tensor: model(field(15, field(2, tensor))),
    "constant": lambda tensor: model(node(field(5, tensor))),
    "constants": lambda tensor: model(node(field(10, INSIDE) + field(10, tensor))),
    "sparse constant": lambda tensor: model(node(field(22, field(1, tensor)))),
    "subgraph": lambda tensor: model(node(field(6, node(field(11, field(5, tensor)))))),
    "function": lambda tensor: model(b"") + field(25, field(7, field(5, field(5, tensor)))),
    "default of a function": lambda tensor: model(b"") + field(25, field(11, field(5, tensor))),
    "training": lambda tensor: model(b"") + field(20, field(2, field(5, tensor))),
    "second piece of the graph": lambda tensor: model(field(5, INSIDE)) + field(7, field(5, tensor)),
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_wherever_a_tensor_may_stand(place: str) -> None:
    assert not has_external_data(PLACES[place](INSIDE))
    assert has_external_data(PLACES[place](LOCATED))
    assert has_external_data(PLACES[place](NAMED))


def test_a_location_that_says_inside_is_inside() -> None:
    assert not has_external_data(PLACES["weight"](INSIDE + field(14, 0)))


def test_other_fields_are_skipped() -> None:
    # A doc string of the graph, and a double and a float of an attribute, whose bytes look like anything.
    other = field(10, field(13, b"location")) + node(
        varint(3 << 3 | 1) + b"\x6a" * 8 + varint(2 << 3 | 5) + b"\x6a" * 4
    )
    assert not has_external_data(model(other + field(5, INSIDE)))


@pytest.mark.parametrize(
    "data",
    [
        b"graph denoiser",
        b"\xff" * 20,
        b"\x3a\x05\x2a",
        b"\x3a",
        b"\x08",
        b"\x0b\x00",
        b"\x09\x00",
        b"\x08" + b"\x80" * 11,
    ],
)
def test_what_is_no_protobuf_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"wire type|truncated|too long"):
        has_external_data(data)


def test_deep_nesting_ends() -> None:
    graph = b""
    for _ in range(200):
        graph = node(field(6, graph))
    with pytest.raises(ValueError, match="too deeply"):
        has_external_data(model(graph))


def test_every_truncation_and_many_changes_end_with_an_answer() -> None:
    whole = PLACES["subgraph"](NAMED)
    rng = random.Random(0)
    broken = [whole[:length] for length in range(len(whole))]
    for _ in range(2000):
        changed = bytearray(whole)
        changed[rng.randrange(len(changed))] = rng.randrange(256)
        broken.append(bytes(changed))
    for data in broken:
        try:
            has_external_data(data)
        except ValueError:
            continue


def test_the_reference_bundle_holds_its_weights(reference: Bundle) -> None:
    assert not any(map(has_external_data, reference.graphs.values()))


def test_a_file_of_the_working_directory_is_not_read(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra cpu or gpu")
    from msdm_engine.backends.onnxruntime import OnnxRuntimeBackend
    from msdm_engine.errors import BundleError

    (tmp_path / "weights.bin").write_bytes(bytes(16))
    monkeypatch.chdir(tmp_path)
    bundle = Bundle.open(bundle_folder)
    bundle.contents["text_encoder.onnx"] = PLACES["weight"](NAMED)
    with pytest.raises(BundleError, match="'text_encoder' keeps weights in another file"):
        OnnxRuntimeBackend(bundle, threads=1)

"""Seeded mutations of bytes, of JSON values and of texts; no case depends on anything but its generator."""

from __future__ import annotations

import json
import random
import struct
import zlib
from typing import Any

import onnx

#: Numbers where code breaks: signs, powers of two and their neighbours, the ends of types.
NUMBERS = [0, 1, -1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 127, 128, 255, 256, 257, 4096, 4097, 32767, 32768, 65535, 65536]
NUMBERS += [2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**25, -(2**63)]
FLOATS = [0.0, -0.0, 0.5, -0.95, 1e-320, 1e-7, 1.5, 1e16, 1e300, 1e308, float("inf"), float("-inf"), float("nan")]
TEXTS = [
    "",
    " ",
    "a",
    "A" * 300,
    "\x00",
    "\ud800",
    "\x1b[2J",
    "../x",
    "/etc/passwd",
    "..",
    ".",
    "a/b",
    "C:\\x",
    "é",
    "💩",
]
TEXTS += ["null", "none", "nan", "__proto__", "{}", "%s%n", "x" * 5000, "invent", "masks", "\u202e", "-1", "1e9", "~"]
YAML_BITS = [
    "&a ",
    "*a",
    "!!int ''",
    "!!python/object:os.system x",
    "<<: ",
    "---\n",
    "\t",
    "? ",
    "- ",
    "[" * 30,
    "{",
    "}",
]
YAML_BITS += [
    ":",
    "#",
    "|\n",
    ">\n",
    "'",
    '"',
    "%YAML 1.2\n",
    "\x00",
    "\ufeff",
    "2020-01-01",
    "1:30:00",
    "0x",
    ".inf",
    "~",
]
_OPERATORS = ["Identity", "Neg", "Shape", "Size", "NonZero", "ReduceSum", "Flatten", "Transpose", "Sqrt", "Log", "Exp"]
_OPERATORS += ["Squeeze", "Unique", "Not", "SequenceConstruct", "Optional", "Tile", "Loop", "If", "NoSuchOperator", ""]
_WORD = {1: "B", 2: "H", 4: "I", 8: "Q"}


def mutate_bytes(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """One to six changes: flips, interesting numbers (in the header more often than not), cuts, repeats, splices."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        size = len(out)
        if size == 0:
            return bytes(out)
        at = rng.randrange(min(size, 128)) if rng.random() < 0.6 else rng.randrange(size)
        kind = rng.randrange(9)
        if kind <= 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 3:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) % (1 << 8 * width)
            packed = struct.pack(rng.choice("<>") + _WORD[width], number)
            out[at : at + width] = packed
        elif kind == 4:
            del out[rng.randrange(size) :]
        elif kind == 5:
            del out[at : at + rng.choice((1, 2, 4, 16, 64))]
        elif kind == 6:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16, 64)))
        elif kind == 7:
            length = rng.choice((4, 16, 64, 256))
            out[at:at] = out[at : at + length] * rng.choice((1, 2, 50))
        elif other:
            begin = rng.randrange(len(other))
            out[at:] = other[begin:]
    return bytes(out)


def mutate_png(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """Changes within the chunks of a PNG, whose checksums are made right again: the decoder gets to see them."""
    at, chunks = 8, []
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(rng.choice((1, 1, 2, 3))):
        i = rng.choice((0, rng.randrange(len(chunks))))
        kind, body = chunks[i]
        change = rng.randrange(6)
        if change == 0 and kind == b"IDAT":
            raw = mutate_bytes(rng, zlib.decompress(body)) if len(body) > 6 and body[:1] == b"\x78" else body
            body = zlib.compress(raw, 1)
        elif change == 1:
            chunks.insert(i, chunks[rng.randrange(len(chunks))])
        elif change == 2 and len(chunks) > 2:
            del chunks[i]
            continue
        elif change == 3:
            kind = rng.choice(
                (b"IDAT", b"PLTE", b"tRNS", b"iTXt", b"eXIf", b"acTL", b"fdAT", b"IEND", b"zTXt", b"iCCP")
            )
        else:
            body = mutate_bytes(rng, body, other)
        chunks[min(i, len(chunks) - 1)] = (kind, body)
    parts = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return data[:8] + b"".join(parts)


def mutate_tiff(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """Changes in the first directory of a little-endian TIFF: tag, type, count or value of an entry."""
    out = bytearray(data)
    (start,) = struct.unpack("<I", data[4:8])
    (number,) = struct.unpack("<H", data[start : start + 2])
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = start + 2 + 12 * rng.randrange(number)
        field, width = rng.choice(((0, 2), (2, 2), (4, 4), (8, 4), (8, 4), (8, 2)))
        value = rng.choice(NUMBERS) if rng.random() < 0.7 else rng.randrange(1 << 8 * width)
        out[at + field : at + field + width] = struct.pack("<" + _WORD[width], value % (1 << 8 * width))
    return bytes(out)


def mutate_onnx(rng: random.Random, data: bytes) -> bytes:
    """Another model: operators, their inputs and attributes, shapes and types of tensors exchanged."""
    model = onnx.load_from_string(data)
    graph = model.graph
    for _ in range(rng.choice((1, 1, 2, 4))):
        kind, node = rng.randrange(7), rng.choice(graph.node)
        value = rng.choice([*graph.input, *graph.output])
        names = [*(v.name for v in graph.input), *(name for n in graph.node for name in n.output), "", "no such tensor"]
        if kind == 0:
            node.op_type = rng.choice(_OPERATORS)
        elif kind == 1 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        elif kind == 2:
            node.attribute.append(
                onnx.helper.make_attribute(rng.choice(("axis", "to", "perm")), rng.choice((0, 1, -1, 7)))
            )
        elif kind == 3 and value.type.tensor_type.shape.dim:
            dimension = rng.choice(value.type.tensor_type.shape.dim)
            dimension.dim_value = rng.choice((0, 1, 2, 5, -1, 2**31, 2**62))
        elif kind == 4:
            value.type.tensor_type.elem_type = rng.randrange(0, 24)
        elif kind == 5:
            graph.node.append(node)
        else:  # the tensor that leaves the graph is another one
            source = rng.choice(names)
            last = rng.choice(graph.output).name
            for n in graph.node:
                n.output[:] = [f"old {name}" if name == last else name for name in n.output]
            graph.node.append(onnx.helper.make_node(rng.choice(_OPERATORS), [source], [last]))
    changed: bytes = model.SerializeToString()
    return changed


def mutate_text(rng: random.Random, text: str, other: str = "") -> str:
    """Changes of a YAML or JSON text in its lines and marks."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        lines = text.splitlines(keepends=True) or [""]
        i, at = rng.randrange(len(lines)), rng.randrange(len(text) + 1)
        kind = rng.randrange(8)
        if kind == 0:
            del lines[i]
        elif kind == 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[i] * rng.choice((1, 1, 3, 200)))
        elif kind == 2:
            lines[i] = " " * rng.randrange(9) + lines[i].lstrip()
        elif kind == 3:
            lines[i:] = other.splitlines(keepends=True)[rng.randrange(9) :]
        text = "".join(lines)
        at = min(at, len(text))
        if kind == 4:
            text = text[:at] + rng.choice(YAML_BITS) + text[at:]
        elif kind == 5:
            text = text[:at] + text[at + rng.choice((1, 2, 8, 40)) :]
        elif kind == 6:
            text = text[:at] + str(rng.choice([*NUMBERS, *FLOATS])) + text[at + 1 :]
        elif kind == 7:
            text = text[:at] + rng.choice(TEXTS) + text[at:]
    return text


#: Stands for a value nested so deeply that Python itself could not write it.
_DEEP = "deep" * 9


def mutate_json(rng: random.Random, value: Any) -> str:
    """The text of a value with one to four parts or keys changed, somewhere."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _mutated(rng, value)
    depth = rng.choice((60, 900, 20_000))
    return json.dumps(value).replace(f'"{_DEEP}"', "[" * depth + "]" * depth)


def _mutated(rng: random.Random, value: Any) -> Any:
    children = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not children or rng.random() < 0.12:
        return _replacement(rng, value)
    key = rng.choice(children)
    kind = rng.random()
    if kind > 0.35:
        value[key] = _mutated(rng, value[key])
    elif kind > 0.25:
        value[key] = _replacement(rng, value[key])
    elif kind > 0.15:
        del value[key]
    elif isinstance(value, list):
        value[key:key] = [json.loads(json.dumps(value[key]))] * rng.choice((1, 1, 2, 1000))
    elif kind > 0.08:
        value[rng.choice([*TEXTS, *children, f"{key}s"])] = value.pop(key)
    else:
        value[rng.choice([*TEXTS, *children])] = _replacement(rng, None)
    return value


def _replacement(rng: random.Random, value: Any) -> Any:
    kind = rng.randrange(10)
    if isinstance(value, bool | None) or kind < 3:
        return rng.choice(
            [None, True, False, [], {}, _DEEP, [1, 2, 3], {"a": 1}, rng.choice(TEXTS), rng.choice(NUMBERS)]
        )
    if isinstance(value, int | float):
        return rng.choice(
            [rng.choice(NUMBERS), rng.choice(FLOATS), value + 1, -value, str(value), 10 ** rng.randrange(30)]
        )
    if isinstance(value, str):
        text = mutate_text(rng, value)
        return rng.choice(
            [rng.choice(TEXTS), text, value.upper(), value * rng.choice((2, 999)), value[: len(value) // 2]]
        )
    return rng.choice([None, 0, "", [value], {"a": value}])

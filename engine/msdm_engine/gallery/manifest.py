"""Reading a generated set for its gallery: header and records, checked before anything is drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from msdm_engine.conditions.colour import Colour, RegionColour
from msdm_engine.errors import InputError, RequestError
from msdm_engine.output.pair_set import MANIFEST_FILE, SET_FILE

MAX_LINE_BYTES = 2**20
MAX_HEADER_BYTES = 2**24
#: Largest whole number that JavaScript holds exactly.
MAX_INDEX = 2**53 - 1
MAX_AGREEMENT = 1e6
#: Keys of a record with a place of their own in the gallery; anything else is shown as it stands.
KNOWN = frozenset(
    ["index", "seed", "height_px", "width_px", "nuclei", "morphology", "colour", "metadata", "agreement"]
    + ["image", "image_sha256", "mask", "mask_sha256"]
)
NO_SET_HINT = "name the folder that `msdm-engine sample --out` wrote"


@dataclass(frozen=True)
class Record:
    """One line of ``manifest.jsonl``.

    Args:
        line: number of the line, from 1.
        image, mask: files, relative to the set's folder, below it.
        colour: asked for; a region that was left to the model is None.
        metadata: name -> text, empty texts left out.
        agreement: name -> number, of a critic or measured; the name is empty where the record holds one number, and
            ``accepted`` is 1 or 0.
        other: whatever else the line holds.
    """

    line: int
    index: int
    seed: int
    height_px: int
    width_px: int
    image: PurePosixPath
    mask: PurePosixPath
    morphology: str
    colour: Colour
    metadata: dict[str, str]
    agreement: dict[str, float]
    other: dict[str, Any]


def read_header(folder: Path) -> dict[str, Any]:
    """``set.json``: at least the bundle's name and hash and the data licence.

    Raises:
        InputError: the folder is no set, or the file is damaged; names the key.
    """
    path = folder / SET_FILE
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(MAX_HEADER_BYTES), parse_constant=_no_constant)
    except OSError as error:
        raise InputError(
            f"{folder} is not a generated set: {SET_FILE} cannot be read ({error.strerror or error})", hint=NO_SET_HINT
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}", hint="restore the file, or generate the set again") from error
    for group, key in (("bundle", "name"), ("bundle", "sha256"), ("data", "licence")):
        found = header.get(group) if isinstance(header, dict) else None
        if not isinstance(found, dict) or not isinstance(found.get(key), str):
            raise InputError(
                f"{path} is damaged: it names no {group}.{key}",
                note="a gallery says which bundle made the pictures and under which licence",
                hint="restore the file, or generate the set again",
            )
    return dict(header)


def records(folder: Path) -> Iterator[Record]:
    """The pairs of a set in the order of the manifest, one line in memory at a time.

    Raises:
        InputError: no manifest, a damaged line (named by its number), or a path that leaves the set.
    """
    path = folder / MANIFEST_FILE
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                yield _record(line, number, path)
    except OSError as error:
        raise InputError(
            f"{folder} is not a generated set: {MANIFEST_FILE} cannot be read ({error.strerror or error})",
            hint=NO_SET_HINT,
        ) from error


def check_files(folder: Path, record: Record) -> None:
    """Raises InputError if a file of the pair is missing or lies outside the set."""
    for file in (record.image, record.mask):
        path = folder / file
        if not path.is_file():
            raise InputError(
                f"{path} is missing",
                note=f"line {record.line} of {MANIFEST_FILE} names it",
                hint="restore it, or generate the set again",
            )
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path} is a link that leaves the set", note=f"line {record.line} of {MANIFEST_FILE}")


def _record(line: bytes, number: int, path: Path) -> Record:
    try:
        if len(line) > MAX_LINE_BYTES:
            raise _Damage(f"more than {MAX_LINE_BYTES} bytes")
        raw = json.loads(line, parse_constant=_no_constant)
        if not isinstance(raw, dict):
            raise _Damage("it is no JSON object")
        return Record(
            line=number,
            index=_whole(raw, "index", MAX_INDEX),
            seed=_whole(raw, "seed", 2**64 - 1),
            height_px=_whole(raw, "height_px", 2**20),
            width_px=_whole(raw, "width_px", 2**20),
            image=_file(raw, "image"),
            mask=_file(raw, "mask"),
            morphology=_text(raw, "morphology"),
            colour=_colour(raw),
            metadata={key: text for key in _group(raw, "metadata") if (text := _text(raw["metadata"], key))},
            agreement=_agreement(raw),
            other={key: value for key, value in raw.items() if key not in KNOWN},
        )
    except (ValueError, RecursionError, RequestError) as error:
        reason = error.what if isinstance(error, RequestError) else error
        raise InputError(
            f"line {number} of {path} is damaged: {reason}",
            note=f"it begins with {line[:60]!r}",
            hint="complete an interrupted set with the command that made it and --resume, or remove the line",
        ) from error


class _Damage(ValueError):
    """Why a line is no record."""


def _no_constant(name: str) -> float:
    raise _Damage(f"{name} is not JSON")


def _get(raw: dict[str, Any], key: str) -> Any:
    if key not in raw:
        raise _Damage(f"it lacks '{key}'")
    return raw[key]


def _whole(raw: dict[str, Any], key: str, high: int) -> int:
    value = _get(raw, key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= high:
        raise _Damage(f"{key} is {str(value)[:60]!r}, not a whole number from 0 to {high}")
    return value


def _text(raw: dict[str, Any], key: str) -> str:
    value = _get(raw, key)
    if not isinstance(value, str):
        raise _Damage(f"{key} is {type(value).__name__}, not a text")
    return value


def _group(raw: dict[str, Any], key: str) -> dict[str, Any]:
    value = _get(raw, key)
    if not isinstance(value, dict):
        raise _Damage(f"{key} is {type(value).__name__}, not an object")
    return value


def _file(raw: dict[str, Any], key: str) -> PurePosixPath:
    text = _text(raw, key)
    text.encode("utf-8")  # half a surrogate pair names no file and no address: a UnicodeEncodeError, so a ValueError
    path = PurePosixPath(text)
    # A backslash or a colon is a separator on Windows, where such a path could leave the set.
    if not path.parts or path.is_absolute() or ".." in path.parts or any(c in text for c in "\0\\:"):
        raise _Damage(f"{key} is {text[:200]!r}, not a path below the set's folder")
    return path


def _colour(raw: dict[str, Any]) -> Colour:
    group = _group(raw, "colour")
    return Colour(*(_region(group.get(name), name) for name in ("foreground", "background")))


def _region(raw: Any, name: str) -> RegionColour | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise _Damage(f"colour {name} is {type(raw).__name__}, not an object")
    values = {}
    for key in ("mean", "std"):
        value = _get(raw, key)
        if not isinstance(value, list) or len(value) != 3 or not all(_is_number(v) for v in value):
            raise _Damage(f"colour {name}: {key} is {str(value)[:60]}, not three numbers")
        values[key] = (float(value[0]), float(value[1]), float(value[2]))
    return RegionColour(**values)


def _agreement(raw: dict[str, Any]) -> dict[str, float]:
    value = raw.get("agreement")
    if value is None:
        return {}
    numbers = dict(value) if isinstance(value, dict) else {"": value}
    if isinstance(numbers.get("accepted"), bool):
        numbers["accepted"] = int(numbers["accepted"])
    if not all(_is_number(v) and abs(v) <= MAX_AGREEMENT for v in numbers.values()):
        raise _Damage(f"agreement is {str(value)[:60]}, neither a number nor an object of numbers to {MAX_AGREEMENT:g}")
    return {key: float(v) for key, v in numbers.items()}


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # A whole number of any length is legal JSON; beyond the range of a float it is none of ours.
    return abs(value) < 1e300 and math.isfinite(value)

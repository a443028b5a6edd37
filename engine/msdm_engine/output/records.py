"""Reading a generated set: its header, its pairs, and whether every file is what the manifest says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdm_engine.errors import OutputError

SET_FILE, MANIFEST_FILE, SHEET_FILE = "set.json", "manifest.jsonl", "contact_sheet.png"
KINDS = ("image", "mask")
MAX_LINE_BYTES = 2**20


def encode_record(record: dict[str, Any]) -> bytes:
    """One line of ``manifest.jsonl``."""
    return (json.dumps(record) + "\n").encode()


def read_header(folder: Path) -> dict[str, Any]:
    """``set.json`` of a set; an OutputError if the folder is no set."""
    try:
        header = json.loads((folder / SET_FILE).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(
            f"{folder} is not a generated set: {SET_FILE} cannot be read ({error})",
            hint="name the folder that `msdm-engine sample --out` wrote",
        ) from error
    if not isinstance(header, dict):
        raise OutputError(f"{folder / SET_FILE} is not a JSON object", hint="the set is damaged: generate it again")
    return header


def read_records(folder: Path) -> Iterator[dict[str, Any] | None]:
    """Each line of the manifest: its record, or None for a line that is none (cut short by a kill, say)."""
    try:
        with (folder / MANIFEST_FILE).open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                yield _record(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{folder / MANIFEST_FILE} cannot be read: {error.strerror or error}") from error


def _record(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
        index = record["index"]
        named = all(
            record[kind] == f"{kind}s/{index:06d}.png" and isinstance(record[f"{kind}_sha256"], str) for kind in KINDS
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    # The names follow from the index, so that no name can lead out of the folder.
    return dict(record) if named and type(index) is int and index >= 0 else None


def whole_pairs(folder: Path) -> dict[int, bytes]:
    """Lines of the manifest, by index, whose files are both there and as they were written."""
    lines = {}
    for record in read_records(folder):
        if record and all(file_problem(folder / record[kind], record[f"{kind}_sha256"]) is None for kind in KINDS):
            lines[record["index"]] = encode_record(record)
    return lines


def file_problem(path: Path, sha256: str) -> str | None:
    """What is wrong with a file of a set; None: it is as it was written."""
    try:
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None if same else "is not as it was written"


@dataclass(frozen=True)
class Verification:
    """What :func:`verify_set` found.

    Args:
        expected: pairs that the set should have.
        whole: pairs whose picture and mask are as they were written.
        problems: one sentence each; none for a whole set.
    """

    expected: int
    whole: int
    problems: tuple[str, ...]


def verify_set(folder: Path) -> Verification:
    """Checks each file of a set against its manifest: missing, changed, unlisted, left over from an interruption.

    Raises:
        OutputError: the folder is no set.
    """
    expected = read_header(folder).get("pairs")
    if type(expected) is not int or expected < 0:
        raise OutputError(f"{folder / SET_FILE} does not say how many pairs the set has")
    problems: list[str] = []
    order: list[int] = []
    whole: set[int] = set()
    for number, record in enumerate(read_records(folder), start=1):
        if record is None or record["index"] >= expected:
            problems.append(f"line {number} of {MANIFEST_FILE} is no pair of this set")
            continue
        order.append(record["index"])
        checks = {kind: file_problem(folder / record[kind], record[f"{kind}_sha256"]) for kind in KINDS}
        problems += [f"{record[kind]} {problem}" for kind, problem in checks.items() if problem]
        whole |= set() if any(checks.values()) else {record["index"]}
    listed = set(order)
    if order != sorted(listed):
        problems.append(f"{MANIFEST_FILE} is not in the order of the pairs, each once")
    if len(listed) < expected:
        first = next(index for index in range(expected) if index not in listed)
        problems.append(f"{expected - len(listed)} of {expected} pairs are not there yet, first {first}")
    if not (folder / SHEET_FILE).is_file():
        problems.append(f"{SHEET_FILE} is missing")
    return Verification(expected, len(whole), (*problems, *_unlisted(folder, listed)))


def _unlisted(folder: Path, listed: set[int]) -> Iterator[str]:
    names = {f"{index:06d}.png" for index in listed}
    for kind in KINDS:
        found = sorted(path.name for path in (folder / f"{kind}s").glob("*"))
        yield from (f"{kind}s/{name} is not listed" for name in found if name not in names)
    yield from (f"{path.name} is left over" for path in sorted(folder.glob(".*.tmp")))

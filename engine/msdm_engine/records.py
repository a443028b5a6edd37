"""Reading a generated set: its header, its pairs, and whether every file is what the manifest says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdm_engine.errors import OutputError

SET_FILE, MANIFEST_FILE = "set.json", "manifest.jsonl"
KINDS = ("image", "mask")


def encode_record(record: dict[str, Any]) -> bytes:
    """One line of ``manifest.jsonl``."""
    return (json.dumps(record) + "\n").encode()


def read_header(folder: Path) -> dict[str, Any]:
    """``set.json`` of a set; an OutputError if the folder is no set."""
    try:
        header = json.loads((folder / SET_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{folder} is not a generated set: {SET_FILE} cannot be read ({error})",
            hint="name the folder that `msdm-engine sample --out` wrote",
        ) from error
    if not isinstance(header, dict):
        raise OutputError(f"{folder / SET_FILE} is not a JSON object", hint="the set is damaged: generate it again")
    return header


def complete_records(folder: Path, *, check: bool) -> list[dict[str, Any]]:
    """Records of the manifest that are whole, each index once.

    Args:
        check: also compare both files with their hashes, and leave out pairs that differ. A last line that was
            cut short by a kill is left out either way.
    """
    try:
        lines = (folder / MANIFEST_FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    records: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            record = json.loads(line)
            index = record["index"]
            files = [(record[kind], record[f"{kind}_sha256"]) for kind in KINDS]
        except (ValueError, KeyError, TypeError):
            continue
        if not isinstance(index, int) or files != [
            (f"{kind}s/{index:06d}.png", files[i][1]) for i, kind in enumerate(KINDS)
        ]:
            continue
        if not check or all(_hash(folder / file) == sha256 for file, sha256 in files):
            records[index] = record
    return list(records.values())


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


@dataclass(frozen=True)
class Verification:
    """What :func:`verify_set` found; ``problems`` is empty for a whole set."""

    expected: int
    whole: int
    problems: tuple[str, ...]


def verify_set(folder: Path) -> Verification:
    """Checks each file of a set against its manifest: missing, changed, unlisted.

    Raises:
        OutputError: the folder is no set.
    """
    header = read_header(folder)
    expected = header.get("pairs")
    if not isinstance(expected, int):
        raise OutputError(f"{folder / SET_FILE} does not say how many pairs the set has")
    records = complete_records(folder, check=False)
    problems, whole = [], 0
    for record in records:
        wrong = []
        for kind in KINDS:
            found = _hash(folder / record[kind])
            if found != record[f"{kind}_sha256"]:
                wrong.append(f"{record[kind]} is {'missing' if found is None else 'not as it was written'}")
        problems += wrong
        whole += not wrong
    present = {record["index"] for record in records}
    missing = [index for index in range(expected) if index not in present]
    if missing:
        problems.append(f"{len(missing)} of {expected} pairs are not there yet, first {missing[0]}")
    listed = {record[kind] for record in records for kind in KINDS}
    for kind in KINDS:
        found_files = sorted(path.name for path in (folder / f"{kind}s").glob("*"))
        problems += [f"{kind}s/{name} is not listed" for name in found_files if f"{kind}s/{name}" not in listed]
    return Verification(expected, whole, tuple(problems))

"""Whether a generated set is what its manifest says, in any format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from msdm_engine.output.records import MANIFEST_FILE, SHEET_FILE, encode_record, range_of, read_header, read_records
from msdm_engine.output.sink import Found, Sink, sink_of


def read_pairs(sink: Sink, records: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Found]]:
    """Each record with its pair, or with what is wrong with it; neighbours of one bucket are read together."""
    for _, bucket in groupby(records, lambda record: record["index"] // sink.bucket_pairs):
        together = list(bucket)
        if len({record["index"] for record in together}) == len(together):
            yield from zip(together, sink.read(together), strict=True)
        else:  # a number listed twice
            yield from ((record, found) for record in together for found in sink.read([record]))


def whole_pairs(folder: Path) -> dict[int, bytes]:
    """Lines of the manifest, by index, whose pairs are there as they were written."""
    sink = sink_of(folder, read_header(folder))
    return whole_in(folder, sink)


def whole_in(folder: Path, sink: Sink) -> dict[int, bytes]:
    """As :func:`whole_pairs`; lines of one bucket may stand apart in an interrupted set."""
    found = {record["index"]: record for record in read_records(folder, sink.names) if record}
    in_order = (found[index] for index in sorted(found))
    return {r["index"]: encode_record(r) for r, pair in read_pairs(sink, in_order) if not isinstance(pair, tuple)}


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
    """Checks each pair of a set against its manifest: missing, changed, unlisted, left over from an interruption.

    A set made with ``--shard`` is whole when all pairs of its shard are.

    Raises:
        OutputError: the folder is no set.
        RequestError: the set's format needs a library that is not installed.
    """
    header = read_header(folder)
    expected = range_of(folder, header)
    sink = sink_of(folder, header)
    problems: list[str] = []
    order: list[int] = []
    whole: set[int] = set()

    def listed() -> Iterator[dict[str, Any]]:
        for number, record in enumerate(read_records(folder, sink.names), start=1):
            if record is None or record["index"] not in expected:
                problems.append(f"line {number} of {MANIFEST_FILE} is no pair of this set")
                continue
            order.append(record["index"])
            yield record

    for record, pair in read_pairs(sink, listed()):
        if isinstance(pair, tuple):
            problems += [problem for problem in pair if problem not in problems[-1:]]  # a tar says it once
        else:
            whole.add(record["index"])
    there = set(order)
    if order != sorted(there):
        problems.append(f"{MANIFEST_FILE} is not in the order of the pairs, each once")
    count = expected.stop - expected.start  # len() ends at 2^63, and a header may claim anything
    if len(there) < count:
        first = next(index for index in expected if index not in there)
        problems.append(f"{count - len(there)} of {count} pairs are not there yet, first {first}")
    if not (folder / SHEET_FILE).is_file():
        problems.append(f"{SHEET_FILE} is missing")
    problems += sink.unlisted(there)
    problems += [f"{path.name} is left over" for path in sorted(folder.glob(".*.tmp"))]
    return Verification(count, len(whole), tuple(problems))

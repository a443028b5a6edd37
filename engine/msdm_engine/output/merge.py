"""Shards of a set joined to the set that one run would have made; and sets carried from one format to another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from msdm_engine.errors import InputError, OutputError, RequestError
from msdm_engine.output.pair_set import PairSet, first_difference
from msdm_engine.output.records import MANIFEST_FILE, range_of, read_header, read_records
from msdm_engine.output.sink import OutputChoice, Sink, Stored, sink_of
from msdm_engine.output.verify import read_pairs, verify_set

_STILL = "let nothing write to the shards while they are merged"


@dataclass(frozen=True)
class _Part:
    """One shard, or a whole set."""

    folder: Path
    header: dict[str, Any]
    pairs: range

    @staticmethod
    def open(folder: Path) -> _Part:
        try:
            header = read_header(folder)
            return _Part(folder, header, range_of(folder, header))
        except OutputError as error:  # to this command a set is input
            raise InputError(error.what, note=error.note, hint=error.hint) from error

    def stored(self, sink: Sink) -> Iterator[Stored]:
        """Its pairs in their order, each checked by its hashes again as it is read."""
        for record, found in read_pairs(sink, (r for r in read_records(self.folder, sink.names) if r)):
            if isinstance(found, tuple):
                raise InputError(f"{self.folder}, pair {record['index']}: {found[0]}", hint=_STILL)
            yield found


def merge_shards(
    shards: Sequence[Path],
    out: Path,
    *,
    output: OutputChoice | None = None,
    resume: bool = False,
    progress: bool = False,
) -> int:
    """Joins the shards of a set; the result is the set of one unsharded run, to the byte.

    Every shard is verified before anything is written, and each pair once more as it is copied. Interrupted, ``resume``
    completes the set.

    Args:
        shards: folders that ``msdm-engine sample --shard`` wrote, in any order; or one whole set.
        out: must not exist or be empty, unless ``resume``.
        output: write another format; None: that of the shards.

    Returns:
        the number of pairs written by this call.

    Raises:
        RequestError: no shard, or a format that cannot hold the set.
        InputError: a shard that is no set, is not whole, or is of another set; pairs missing or twice.
        OutputError: ``out`` cannot be written.
    """
    if not shards:
        raise RequestError("no shards", hint="name the folders that `msdm-engine sample --shard` wrote")
    parts = sorted((_Part.open(folder) for folder in shards), key=lambda part: (part.pairs.start, part.pairs.stop))
    _check_of_one_set(parts)
    _check_no_gap(parts)
    for part in parts:
        _check_whole(part)
    header = {key: value for key, value in parts[0].header.items() if key != "shard"}
    if output is not None:
        header["output"] = output.header(_sizes(parts))
    as_it_is = header.get("output") == parts[0].header.get("output")
    with PairSet(out, header, resume=resume) as pairs:
        bar = tqdm(total=header["pairs"], initial=len(pairs.done), unit="pair", disable=not progress)
        for part in parts:
            sink = sink_of(part.folder, part.header)
            for stored in part.stored(sink):
                if stored.index in pairs.done:
                    continue
                pairs.copy(stored) if as_it_is else pairs.encode(stored, sink)
                bar.update()
        bar.close()
    return pairs.written


def _check_of_one_set(parts: Sequence[_Part]) -> None:
    first = parts[0]
    for part in parts[1:]:
        different = first_difference(
            *({key: value for key, value in one.header.items() if key != "shard"} for one in (first, part))
        )
        if different:
            where, there, here = different
            raise InputError(
                f"{part.folder} and {first.folder} are shards of two sets: another {where}",
                note=f"{json.dumps(here)[:200]}; {json.dumps(there)[:200]}",
                hint="make all shards with one bundle, request and settings, on one kind of machine",
            )


def _check_no_gap(parts: Sequence[_Part]) -> None:
    reached = 0
    for part, before in zip(parts, [None, *parts[:-1]], strict=True):
        if part.pairs.start < reached and before is not None:
            raise InputError(
                f"{part.folder} and {before.folder} both hold pair {part.pairs.start}",
                hint="name each shard once, all made with the same number of shards",
            )
        _check_reached(reached, part.pairs.start)
        reached = part.pairs.stop
    _check_reached(reached, parts[0].header["pairs"])


def _check_reached(reached: int, wanted: int) -> None:
    if reached < wanted:
        raise InputError(
            f"pairs {reached} to {wanted - 1} are in none of the shards", hint="make the missing shard, and name it too"
        )


def _check_whole(part: _Part) -> None:
    try:
        found = verify_set(part.folder)
    except OutputError as error:
        raise InputError(error.what, note=error.note, hint=error.hint) from error
    if found.problems:
        raise InputError(
            f"shard {part.folder} is not whole: {found.problems[0]}",
            note=f"{len(found.problems)} problem(s); `msdm-engine verify {part.folder}` lists them",
            hint="complete it with the command that made it and --resume",
        )


def _sizes(parts: Sequence[_Part]) -> set[tuple[int, int]]:
    sizes = set()
    for part in parts:
        for record in read_records(part.folder, sink_of(part.folder, part.header).names):
            height, width = ((record or {}).get(key) for key in ("height_px", "width_px"))
            if type(height) is not int or type(width) is not int:
                raise InputError(f"{part.folder / MANIFEST_FILE}: a record names no size", hint=_STILL)
            sizes.add((height, width))
    return sizes

"""A set of pairs on disk: ``set.json``, ``manifest.jsonl``, ``contact_sheet.png``, and the pairs in the set's format.

Every file is written under a temporary name, flushed and renamed, and a pair enters ``manifest.jsonl`` only when all
of it is in place. Encoding and writing happen in threads, beside the sampler.
"""

from __future__ import annotations

import errno
import json
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from msdm_engine.errors import MsdmError, OutputError
from msdm_engine.output.contact_sheet import ContactSheet
from msdm_engine.output.folder import Claim, claim_new, claim_old, is_begun
from msdm_engine.output.png import png_bytes, write_atomically
from msdm_engine.output.records import (
    MANIFEST_FILE,
    SHEET_FILE,
    encode_record,
    range_of,
    read_header,
    read_records,
)
from msdm_engine.output.sink import Sink, Stored, record_of, sink_of, without_place
from msdm_engine.output.verify import read_pairs, whole_in
from msdm_engine.output.workers import Workers, default_workers
from msdm_engine.pairs import Pair
from msdm_engine.stage_clock import StageClocks

#: Buckets (tars, chunks) that may be being written while the next one fills.
MAX_WRITING = 1


class PairSet:
    """Writes a set; use with ``with``: on the way out it finishes, also after an error, what has been handed in.

    Pairs are written in buckets: one by one (``folder``), a tar (``webdataset``) or a chunk (``zarr``). A bucket that
    is not complete at the end is not written, and a resume makes its pairs again.

    Args:
        folder: must not exist or be empty, unless ``resume``.
        header: what made the set; goes to ``set.json``, and ``header['provenance']`` (text to text) into the
            metadata of every picture. ``header['output']`` names the format; without it, it is ``folder``.
        resume: go on with the set in ``folder``; its header must be equal. Pairs that are whole are kept.
        workers: encoding threads; 0: one for each core, at most eight. At most twice as many pairs wait for them
            (back-pressure).
        clocks: told how long encoding took (stage ``encode``) and how long the caller waited (``sample``, blocked).

    Attributes:
        done: numbers of the pairs that were complete at the start.
        written: pairs written since.

    Raises:
        OutputError: the folder holds something else, is being written by another process, or cannot be written.
        RequestError: the format needs a library that is not installed.
    """

    def __init__(
        self,
        folder: Path,
        header: dict[str, Any],
        *,
        resume: bool = False,
        workers: int = 0,
        clocks: StageClocks | None = None,
    ) -> None:
        self.folder, self.header = folder, json.loads(json.dumps(header))
        self._sink: Sink = sink_of(folder, self.header)
        self._range = range_of(folder, self.header)
        going_on = resume and is_begun(folder)
        if going_on:
            _refuse_another(folder, read_header(folder), self.header)
            self._claim: Claim = claim_old(folder, self._sink.folders)
        else:
            first_bytes = (json.dumps(self.header, indent=1) + "\n").encode()
            self._claim = claim_new(folder, first_bytes, self._sink.folders, resume=resume)
        try:
            self._sink.begin()
            kept = self._kept() if going_on else {}
            write_atomically(folder / MANIFEST_FILE, b"".join(kept.values()))
        except BaseException:
            self._claim.release()
            raise
        self.done = frozenset(kept)
        self.written = 0
        clocks = clocks or StageClocks()
        self._clock, count = clocks.stage("sample"), workers or default_workers()
        self._pool = Workers(count, clocks.stage("encode"))
        self._pending: deque[Future[Stored]] = deque()
        self._limit = 2 * count
        self._buckets: dict[int, list[Stored]] = {}
        self._writing: deque[Future[list[Stored]]] = deque()

    def __enter__(self) -> PairSet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._drain(0)
            while self._writing:
                self._record(self._writing.popleft().result())
            if error is None:
                self._finish()
        except MsdmError:
            if error is None:
                raise
            # Else what failed first is what is reported; pairs that are not recorded are made again by a resume.
        finally:
            self._pool.close()
            self._claim.release()

    def add(self, pair: Pair) -> None:
        """Hands a pair in; waits while too many are being encoded."""
        self._hand_in(self._pool.submit(self._encode, pair))

    def copy(self, stored: Stored) -> None:
        """Hands in a pair of a set with the same ``output``, as it was stored there."""
        self._hand_in(self._pool.submit(self._written, stored))

    def encode(self, stored: Stored, source: Sink) -> None:
        """Hands in a pair of a set with another ``output``."""
        self._hand_in(self._pool.submit(self._encoded_anew, stored, source))

    def _hand_in(self, future: Future[Stored]) -> None:
        self._pending.append(future)
        if len(self._pending) > self._limit:
            with self._clock.blocked():
                self._drain(self._limit)

    def _drain(self, left: int) -> None:
        while len(self._pending) > left:
            self._take(self._pending.popleft().result())

    def _encode(self, pair: Pair) -> Stored:
        return self._written(self._sink.encode(record_of(pair), pair.image, pair.instances))

    def _encoded_anew(self, stored: Stored, source: Sink) -> Stored:
        return self._written(self._sink.encode(without_place(stored.record), *source.pixels(stored)))

    def _written(self, stored: Stored) -> Stored:
        """A bucket of one pair is written at once, by the thread that encoded it."""
        if self._sink.bucket_pairs == 1:
            self._sink.write([stored])
        return stored

    def _take(self, stored: Stored) -> None:
        if self._sink.bucket_pairs == 1:
            self._record([stored])
            return
        number = stored.index // self._sink.bucket_pairs
        bucket = self._buckets.setdefault(number, [])
        bucket.append(stored)
        if len(bucket) == len(self._bucket(number)):
            del self._buckets[number]
            self._writing.append(self._pool.submit(self._write, sorted(bucket, key=lambda one: one.index)))
            while len(self._writing) > MAX_WRITING:
                self._record(self._writing.popleft().result())

    def _write(self, bucket: list[Stored]) -> list[Stored]:
        self._sink.write(bucket)
        return bucket

    def _bucket(self, number: int) -> range:
        """Numbers of the pairs of a bucket that this set holds."""
        first = number * self._sink.bucket_pairs
        return range(max(first, self._range.start), min(first + self._sink.bucket_pairs, self._range.stop))

    def _kept(self) -> dict[int, bytes]:
        """Lines of the pairs that are whole and in a bucket that is."""
        whole = whole_in(self.folder, self._sink)
        numbers = {index // self._sink.bucket_pairs for index in whole}
        complete = {number for number in numbers if all(index in whole for index in self._bucket(number))}
        return {index: line for index, line in whole.items() if index // self._sink.bucket_pairs in complete}

    def _record(self, pairs: Iterable[Stored]) -> None:
        lines = [encode_record(stored.record) for stored in pairs]
        _append(self.folder / MANIFEST_FILE, b"".join(lines))
        self.written += len(lines)

    def _finish(self) -> None:
        """Brings the manifest into the order of the pairs, and draws the contact sheet from what was stored."""
        records = {record["index"]: record for record in read_records(self.folder, self._sink.names) if record}
        in_order = [records[index] for index in sorted(records)]
        write_atomically(self.folder / MANIFEST_FILE, b"".join(encode_record(record) for record in in_order))
        sheet = ContactSheet()
        # All records, so that a bucket is read whole; those behind the last pair of the sheet are not read.
        for _, stored in islice(read_pairs(self._sink, in_order), sheet.limit):
            if isinstance(stored, tuple):
                raise OutputError(f"{self.folder}: {stored[0]}", hint="complete the set with --resume")
            sheet.add(*self._sink.pixels(stored))
        if in_order:
            write_atomically(self.folder / SHEET_FILE, png_bytes(sheet.draw(), self.header["provenance"]))


def _append(path: Path, line: bytes) -> None:
    """Adds a line; after an error the file is as before.

    It is not flushed to disk: the pairs it names are, so after a power failure a lost line costs no more than making
    its pair again, and a flush a pair is what the sampler would wait for. The whole manifest is flushed at the end.
    """
    try:
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except BaseException:
                with suppress(OSError):  # what failed first is what is reported; a resume drops half a line
                    os.ftruncate(file.fileno(), before)
                raise
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}", hint="check the free space and the permissions"
        ) from error


def first_difference(found: dict[str, Any], asked: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """Name and both values of the first place where two headers differ; what made the sets is looked at first."""
    first = ("bundle", "request", "engine")
    keys = dict.fromkeys((*first, *asked, *found))
    return next(filter(None, (_difference(found.get(key), asked.get(key), key) for key in keys)), None)


def _refuse_another(folder: Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raises OutputError, naming the first difference, unless the set in the folder was made by the same."""
    different = first_difference(found, asked)
    if different:
        where, there, here = different
        raise OutputError(
            f"output {folder} was made with another {where}",
            note=f"there: {json.dumps(there)[:200]}; asked for: {json.dumps(here)[:200]}",
            hint="resume with the bundle, request and settings that it was begun with, or choose another --out",
        )


def _difference(found: Any, asked: Any, where: str) -> tuple[str, Any, Any] | None:
    """Name and both values of the first place where two JSON values differ."""
    if isinstance(found, dict) and isinstance(asked, dict):
        pairs = [(f"{where}.{key}", found.get(key), asked.get(key)) for key in {**asked, **found}]
    elif isinstance(found, list) and isinstance(asked, list) and len(found) == len(asked):
        pairs = [(f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(found, asked, strict=True))]
    else:
        return None if found == asked else (where, found, asked)
    return next(filter(None, (_difference(a, b, place) for place, a, b in pairs)), None)

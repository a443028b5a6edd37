"""The format ``folder``: ``images/000123.png`` and ``masks/000123.png`` (16-bit labels)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msdm_engine.output.png import write_atomically
from msdm_engine.output.records import KINDS, folder_names
from msdm_engine.output.sink import Found, PngPairs, Stored, sha256


class FolderSink(PngPairs):
    """See :class:`msdm_engine.output.sink.Sink`; every picture is a file of its own."""

    bucket_pairs = 1
    folders = tuple(f"{kind}s" for kind in KINDS)

    def __init__(self, folder: Path, provenance: Mapping[str, str]) -> None:
        super().__init__(provenance)
        self._folder = folder

    def begin(self) -> None:
        """Nothing more than the folders."""

    def names(self, index: int) -> dict[str, Any]:
        """The two files."""
        return folder_names(index)

    def write(self, bucket: Sequence[Stored]) -> None:
        """Two files a pair, each whole or not at all; a pair counts when both are there."""
        for stored in bucket:
            write_atomically(self._folder / stored.record["image"], stored.image)
            write_atomically(self._folder / stored.record["mask"], stored.mask)

    def read(self, records: Sequence[Mapping[str, Any]]) -> list[Found]:
        """Both files of each pair, or what is wrong with them."""
        return [self._read(record) for record in records]

    def _read(self, record: Mapping[str, Any]) -> Found:
        data, problems = {}, []
        for kind in KINDS:
            try:
                data[kind] = (self._folder / record[kind]).read_bytes()
            except FileNotFoundError:
                problems.append(f"{record[kind]} is missing")
            except OSError as error:
                problems.append(f"{record[kind]} cannot be read: {error.strerror or error}")
            else:
                if sha256(data[kind]) != record[f"{kind}_sha256"]:
                    problems.append(f"{record[kind]} is not as it was written")
        return tuple(problems) or Stored(dict(record), data["image"], data["mask"])

    def unlisted(self, listed: set[int]) -> Iterator[str]:
        """Files in the two folders that no record names."""
        names = {f"{index:06d}.png" for index in listed}
        for folder in self.folders:
            found = sorted(path.name for path in (self._folder / folder).glob("*"))
            yield from (f"{folder}/{name} is not listed" for name in found if name not in names)

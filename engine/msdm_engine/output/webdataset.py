"""The format ``webdataset``: ``pairs-000000.tar`` and on, each with ``000123.image.png``, ``000123.mask.png`` (16-bit
labels) and ``000123.json`` (record and provenance) for its pairs, in their order.

A tar's bytes follow from its pairs: no owner, no time, one order. So a tar is whole if building it again from the
records and the pictures in it gives the same bytes.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msdm_engine.output.png import write_atomically
from msdm_engine.output.sink import Found, PngPairs, Stored, sha256, without_place

_TAR = re.compile(r"pairs-(\d{6,})\.tar")


class WebDatasetSink(PngPairs):
    """See :class:`msdm_engine.output.sink.Sink`.

    Args:
        tar_pairs: tar k holds the pairs ``k * tar_pairs`` to ``(k + 1) * tar_pairs - 1`` that the set has.
    """

    folders: tuple[str, ...] = ()

    def __init__(self, folder: Path, provenance: Mapping[str, str], *, tar_pairs: int) -> None:
        super().__init__(provenance)
        self._folder, self.bucket_pairs = folder, tar_pairs

    def begin(self) -> None:
        """Nothing."""

    def names(self, index: int) -> dict[str, Any]:
        """The two members and their tar."""
        tar = f"pairs-{index // self.bucket_pairs:06d}.tar"
        return {"image": f"{index:06d}.image.png", "mask": f"{index:06d}.mask.png", "tar": tar}

    def write(self, bucket: Sequence[Stored]) -> None:
        """One tar, whole or not at all."""
        write_atomically(self._folder / bucket[0].record["tar"], self._tar(bucket))

    def read(self, records: Sequence[Mapping[str, Any]]) -> list[Found]:
        """The pairs of one tar; if anything in the tar is not as it was written, none of them counts."""
        name = records[0]["tar"]
        try:
            data = (self._folder / name).read_bytes()
            members = _members(data)
        except FileNotFoundError:
            return [(f"{name} is missing",)] * len(records)
        except (OSError, tarfile.TarError) as error:
            return [(f"{name} cannot be read: {error}",)] * len(records)
        absent = b""  # its hash is no record's: a PNG is not empty
        found = [Stored(dict(r), members.get(r["image"], absent), members.get(r["mask"], absent)) for r in records]
        same = all(
            sha256(one.image) == one.record["image_sha256"] and sha256(one.mask) == one.record["mask_sha256"]
            for one in found
        )
        if not same or self._tar(found) != data:
            return [(f"{name} is not as it was written",)] * len(records)
        return list(found)

    def unlisted(self, listed: set[int]) -> Iterator[str]:
        """Tars that no record names."""
        names = {self.names(index)["tar"] for index in listed}
        found = sorted(path.name for path in self._folder.glob("*.tar"))
        yield from (f"{name} is not listed" for name in found if _TAR.fullmatch(name) and name not in names)

    def _tar(self, pairs: Sequence[Stored]) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for stored in pairs:
                about = without_place(stored.record) | {
                    "image_sha256": stored.record["image_sha256"],
                    "mask_sha256": stored.record["mask_sha256"],
                    "provenance": self._provenance,
                }
                for name, data in (
                    (stored.record["image"], stored.image),
                    (stored.record["mask"], stored.mask),
                    (f"{stored.index:06d}.json", (json.dumps(about) + "\n").encode()),
                ):
                    member = tarfile.TarInfo(name)  # time 0, owner 0 without a name
                    member.size, member.mode = len(data), 0o644
                    tar.addfile(member, io.BytesIO(data))
        return file.getvalue()


def _members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        # A sparse member can claim any size; ours are none.
        files = ((member.name, tar.extractfile(member)) for member in tar if member.isreg() and not member.issparse())
        return {name: file.read() for name, file in files if file is not None}

"""WebDataset: tar files ``000000.tar``, ..., with ``KEY.image.png``, ``KEY.mask.png`` and ``KEY.json`` for each pair.

Equal sets give equal bytes: the files of a tar have no owner, and the time 0. ``KEY.json`` holds the pair's record
of the manifest, and where it comes from in ``provenance``.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

from msdm_engine.convert.format import Conversion, Format
from msdm_engine.convert.source import SetPair

#: A shard ends with the pair that reaches one of these.
SHARD_PAIRS, SHARD_BYTES = 1000, 256 * 2**20


def write_webdataset(conversion: Conversion) -> None:
    """Writes the shards; the file names of a pair stand together, as WebDataset needs it."""
    pairs = conversion.each()
    left, shard = len(conversion.pairs), 0
    while left:
        with tarfile.open(conversion.folder / f"{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            left -= _fill(tar, pairs, conversion)
        shard += 1


def _fill(tar: tarfile.TarFile, pairs: Iterator[SetPair], conversion: Conversion) -> int:
    """Adds pairs until the shard is full or none is left; returns how many."""
    count = size = 0
    for pair in pairs:
        for suffix, data in _files(pair, conversion).items():
            member = tarfile.TarInfo(f"{pair.name}.{suffix}")  # time 0, owner 0 without a name
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
            size += len(data)
        count += 1
        if count >= SHARD_PAIRS or size >= SHARD_BYTES:
            break
    return count


def _files(pair: SetPair, conversion: Conversion) -> dict[str, bytes]:
    record = {key: value for key, value in pair.record.items() if key not in ("image", "mask")}
    record |= {"nucleus_class": conversion.nucleus_class, "provenance": conversion.provenance.to_json()}
    return {"image.png": pair.image_png(), "mask.png": pair.mask_png(), "json": (json.dumps(record) + "\n").encode()}


WEBDATASET = Format(write_webdataset, "webdataset.WebDataset (docs/formats.md: decode the mask as 16 bits)")

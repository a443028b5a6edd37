"""Where the pairs of a set lie: one contract for every format, and which format a set has."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from msdm_engine.errors import OutputError, RequestError, nearest
from msdm_engine.output.png import PNG_CODEC, pixels_of_png, png_bytes
from msdm_engine.pairs import Pair

FOLDER, WEBDATASET, ZARR = "folder", "webdataset", "zarr"
FORMATS = (FOLDER, WEBDATASET, ZARR)
MAX_TAR_PAIRS, MAX_CHUNK_PAIRS = 100_000, 4096
#: Fields of a record that say where the pair lies; the others are the same in every format.
PLACE = ("image", "image_sha256", "mask", "mask_sha256", "tar")


@dataclass(frozen=True)
class OutputChoice:
    """In which format a set is written.

    Args:
        format: one of :data:`FORMATS`.
        tar_pairs: pairs of a tar file, 1 to 100,000 (webdataset). A tar is held in memory until it is complete.
        chunk_pairs: pairs of a chunk, 1 to 4096 (zarr).

    Raises:
        RequestError: an unknown format, or a number out of range.
    """

    format: str = FOLDER
    tar_pairs: int = 256
    chunk_pairs: int = 1

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise RequestError(f"unknown format '{self.format}'", note=nearest(self.format, FORMATS))
        for name, value, most in (
            ("tar_pairs", self.tar_pairs, MAX_TAR_PAIRS),
            ("chunk_pairs", self.chunk_pairs, MAX_CHUNK_PAIRS),
        ):
            if not 1 <= value <= most:
                raise RequestError(f"{name} is {value}", note=f"a whole number from 1 to {most}")

    def header(self, sizes: Collection[tuple[int, int]]) -> dict[str, Any]:
        """``output`` of ``set.json``: all that decides the bytes for given pixels.

        Args:
            sizes: (height, width) in px of the pairs of the set.

        Raises:
            RequestError: several sizes, which a Zarr array cannot hold.
        """
        if self.format == ZARR:
            if len(sizes) > 1:
                shown = ", ".join(f"{height} x {width}" for height, width in sorted(sizes)[:4])
                raise RequestError(
                    f"a set of {len(sizes)} sizes ({shown} px) cannot be written as zarr",
                    note="all pairs of a Zarr array have one size",
                    hint="choose --format folder or webdataset, or make a set for each size",
                )
            from msdm_engine.output.zarr_sink import zarr_codec

            ((height, width),) = sizes or [(0, 0)]
            size = {"height_px": height, "width_px": width}
            return {"format": ZARR, "chunk_pairs": self.chunk_pairs, **size, "codec": zarr_codec()}
        header: dict[str, Any] = {"format": self.format, "png": dict(PNG_CODEC)}
        return header | ({"tar_pairs": self.tar_pairs} if self.format == WEBDATASET else {})


@dataclass(frozen=True)
class Stored:
    """A pair as a format keeps it.

    Args:
        record: its line of the manifest.
        image, mask: the bytes that the record's hashes are of.
    """

    record: dict[str, Any]
    image: bytes
    mask: bytes

    @property
    def index(self) -> int:
        """Number of the pair in its set."""
        return int(self.record["index"])


#: What :meth:`Sink.read` finds of a pair: the pair, or what is wrong with it, one sentence each.
Found = Stored | tuple[str, ...]


class Sink(Protocol):
    """A format at a place. Methods may be called from several threads, each for other pairs.

    Attributes:
        bucket_pairs: pairs that are written together, whole or not at all: numbers ``k * bucket_pairs`` and on.
        folders: made, empty, with the set.
    """

    bucket_pairs: int
    folders: tuple[str, ...]

    def begin(self) -> None:
        """Makes what must be there before the first pair; again for a resumed set."""

    def names(self, index: int) -> dict[str, Any]:
        """Fields of a record that follow from its number, so that no name can lead out of the set."""

    def encode(self, record: Mapping[str, Any], image: np.ndarray, instances: np.ndarray) -> Stored:
        """A pair as it will be stored; ``record`` is without place. [H, W, 3] uint8 RGB, [H, W] uint16."""

    def write(self, bucket: Sequence[Stored]) -> None:
        """Writes the pairs of one bucket in the order of their numbers, whole or not at all; raises OutputError."""

    def read(self, records: Sequence[Mapping[str, Any]]) -> list[Found]:
        """The pairs of one bucket as they lie there, each checked by its hashes."""

    def pixels(self, stored: Stored) -> tuple[np.ndarray, np.ndarray]:
        """[H, W, 3] uint8 RGB and [H, W] uint16; raises OutputError for what is no pair."""

    def unlisted(self, listed: set[int]) -> Iterator[str]:
        """A sentence for each file that belongs to no listed pair."""


def record_of(pair: Pair) -> dict[str, Any]:
    """What the manifest says of a pair, whatever the format."""
    request = pair.request
    return {
        "index": request.index,
        "seed": request.seed,
        "height_px": request.height_px,
        "width_px": request.width_px,
        "nuclei": int(pair.instances.max()),
        "morphology": request.morphology,
        "colour": asdict(request.colour),
        "metadata": asdict(request.metadata),
        **_judgement(pair),
        **({} if pair.halved_batch is None else {"batch": pair.halved_batch}),
        **({"outside_ranges": list(pair.outside_ranges)} if pair.outside_ranges else {}),
    }


def _judgement(pair: Pair) -> dict[str, Any]:
    """What the critic said, if it was asked; decoding its maps belongs to the threads that encode."""
    if pair.agreement is None:
        return {}
    agreement: dict[str, Any] = asdict(pair.agreement)
    if pair.accepted is None:
        return {"agreement": agreement}
    return {
        "agreement": {**agreement, "accepted": pair.accepted, "draws": pair.draws},
        "attempt": pair.request.attempt,
    }


def without_place(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as :func:`record_of` made it."""
    return {key: value for key, value in record.items() if key not in PLACE}


def sha256(data: bytes) -> str:
    """Hash of a picture's bytes, as records hold it."""
    return hashlib.sha256(data).hexdigest()


class PngPairs:
    """What the formats of PNG files share: encoding with provenance, and decoding.

    Args:
        provenance: texts of every picture.
    """

    def __init__(self, provenance: Mapping[str, str]) -> None:
        self._provenance = dict(provenance)

    def names(self, index: int) -> dict[str, Any]:
        """See :meth:`Sink.names`."""
        raise NotImplementedError

    def encode(self, record: Mapping[str, Any], image: np.ndarray, instances: np.ndarray) -> Stored:
        """See :meth:`Sink.encode`."""
        text = {**self._provenance, "Seed": str(record["seed"]), "Pair": str(record["index"])}
        if record.get("attempt"):
            text["Attempt"] = str(record["attempt"])
        data = {"image": png_bytes(image, text), "mask": png_bytes(instances, text)}
        names, placed = self.names(record["index"]), dict(record)
        for kind, encoded in data.items():
            placed |= {kind: names.pop(kind), f"{kind}_sha256": sha256(encoded)}
        return Stored(placed | names, **data)

    def pixels(self, stored: Stored) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`Sink.pixels`."""
        image, instances = pixels_of_png(stored.image), pixels_of_png(stored.mask)
        if image.ndim != 3 or image.shape[:2] != instances.shape or instances.dtype != np.uint16:
            raise OutputError(f"pair {stored.index} is no picture with a 16-bit mask of its size")
        return image, instances


def sink_of(folder: Path, header: Mapping[str, Any]) -> Sink:
    """The sink of a set, as its header says; sets made before there were formats are folders.

    Raises:
        OutputError: an unknown format, or a number out of range.
        RequestError: the format needs a library that is not installed; names the extra.
    """
    from msdm_engine.output.folder_sink import FolderSink
    from msdm_engine.output.webdataset import WebDatasetSink
    from msdm_engine.output.zarr_sink import ZarrSink

    output = header.get("output", {"format": FOLDER})
    name = output.get("format") if isinstance(output, dict) else None
    provenance = header.get("provenance", {})
    if name == FOLDER:
        return FolderSink(folder, provenance)
    if name == WEBDATASET:
        return WebDatasetSink(folder, provenance, tar_pairs=_number(output, "tar_pairs", MAX_TAR_PAIRS))
    if name == ZARR:
        return ZarrSink(folder, header)
    raise OutputError(
        f"{folder} has the unknown format {str(name)[:60]!r}",
        note=f"known: {', '.join(FORMATS)}",
        hint="read it with the msdm that wrote it",
    )


def _number(output: Mapping[str, Any], key: str, most: int) -> int:
    value = output.get(key)
    if type(value) is not int or not 1 <= value <= most:
        raise OutputError(f"set.json names {str(value)[:60]!r} as {key}", note=f"a whole number from 1 to {most}")
    return value

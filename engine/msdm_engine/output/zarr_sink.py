"""The format ``zarr``: ``pairs.zarr`` (Zarr v3) with ``images`` [N, H, W, 3] uint8 RGB and ``masks`` [N, H, W] uint16.

Chunks hold one pair or a few. Where the pairs come from stands in the group's attributes; their records, with the
hashes of the pixels, in ``manifest.jsonl`` beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.errors import OutputError, RequestError
from msdm_engine.output.sink import MAX_CHUNK_PAIRS, Found, Stored, sha256
from msdm_engine.pairs import MAX_SIDE_PX

STORE = "pairs.zarr"
_TYPES: dict[str, Any] = {"images": np.dtype("uint8"), "masks": np.dtype("<u2")}


def zarr_codec() -> str:
    """What decides the bytes of a chunk beside its pixels; raises RequestError where the extra is not installed."""
    try:
        return f"zarr {version('zarr')} v3, zstd (numcodecs {version('numcodecs')})"
    except PackageNotFoundError as error:
        raise RequestError(f"the format zarr needs {error.name}", hint="pip install 'msdm[zarr]'") from error


class ZarrSink:
    """See :class:`msdm_engine.output.sink.Sink`.

    Args:
        header: of the set; its ``output`` holds the size of all pairs and ``chunk_pairs``.

    Raises:
        OutputError: a number in the header that is not legal.
        RequestError: zarr is not installed.
    """

    folders: tuple[str, ...] = ()

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        zarr_codec()
        output = header["output"]
        legal = {"chunk_pairs": MAX_CHUNK_PAIRS, "height_px": MAX_SIDE_PX, "width_px": MAX_SIDE_PX}
        for key, most in legal.items():
            if type(output.get(key)) is not int or not 1 <= output[key] <= most:
                raise OutputError(
                    f"set.json names {str(output.get(key))[:60]!r} as {key}", note=f"a whole number from 1 to {most}"
                )
        self._folder, self.bucket_pairs = folder, output["chunk_pairs"]
        size = output["height_px"], output["width_px"]
        self._shapes = {"images": (*size, 3), "masks": size}
        self._count, self._provenance = header["pairs"], dict(header.get("provenance", {}))
        self._arrays: dict[str, Any] | None = None

    def begin(self) -> None:
        """Makes group and arrays where they are missing; all chunks are empty then."""
        import zarr

        try:
            for half in (self._folder / STORE).rglob("*.partial"):  # what Zarr was writing when a process ended
                half.unlink()
            group: Any = zarr.open_group(self._folder / STORE, mode="a", zarr_format=3)
            group.attrs.update({"provenance": self._provenance, "records": "../manifest.jsonl"})
            for name, shape in self._shapes.items():
                if name not in group:
                    chunks = (self.bucket_pairs, *shape)
                    group.create_array(name, shape=(self._count, *shape), chunks=chunks, dtype=_TYPES[name])
        except OSError as error:
            raise self._failure(error) from error

    def names(self, index: int) -> dict[str, Any]:
        """None: the place of a pair is its number."""
        return {}

    def encode(self, record: Mapping[str, Any], image: np.ndarray, instances: np.ndarray) -> Stored:
        """Pixels as they are, little-endian; Zarr compresses whole chunks."""
        size = self._shapes["masks"]
        if instances.shape != size:
            raise OutputError(f"pair {record['index']} is {instances.shape} px in a Zarr array of {size} px")
        data = {"image": image.tobytes(), "mask": instances.astype("<u2").tobytes()}
        return Stored({**record, **{f"{kind}_sha256": sha256(value) for kind, value in data.items()}}, **data)

    def write(self, bucket: Sequence[Stored]) -> None:
        """One chunk of each array; Zarr renames a chunk to its place when it is written."""
        first, arrays = bucket[0].index, self._opened()
        for name, data in (("images", [s.image for s in bucket]), ("masks", [s.mask for s in bucket])):
            pixels = np.frombuffer(b"".join(data), _TYPES[name]).reshape(-1, *self._shapes[name])
            try:
                arrays[name][first : first + len(bucket)] = pixels
            except OSError as error:
                raise self._failure(error) from error

    def read(self, records: Sequence[Mapping[str, Any]]) -> list[Found]:
        """The pairs of one chunk, checked by the hashes of their pixels."""
        first, last = records[0]["index"], records[-1]["index"]
        try:
            arrays = self._opened()
            images, masks = (np.asarray(arrays[name][first : last + 1]) for name in _TYPES)
        except (OSError, ValueError, RuntimeError, OutputError) as error:  # a damaged chunk is one of the latter
            return [(f"pair {record['index']} of {STORE} cannot be read: {error}",) for record in records]
        return [self._found(r, images[r["index"] - first], masks[r["index"] - first]) for r in records]

    def _found(self, record: Mapping[str, Any], image: np.ndarray, mask: np.ndarray) -> Found:
        stored = Stored(dict(record), image.tobytes(), mask.astype("<u2").tobytes())
        same = sha256(stored.image) == record["image_sha256"] and sha256(stored.mask) == record["mask_sha256"]
        return stored if same else (f"pair {record['index']} of {STORE} is not as it was written",)

    def pixels(self, stored: Stored) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`Sink.pixels`."""
        image = np.frombuffer(stored.image, np.uint8).reshape(self._shapes["images"])
        return image, np.frombuffer(stored.mask, "<u2").reshape(self._shapes["masks"]).astype(np.uint16)

    def unlisted(self, listed: set[int]) -> Iterator[str]:
        """Nothing: chunks of pairs that are not there yet are written over."""
        return iter(())

    def _opened(self) -> dict[str, Any]:
        if self._arrays is None:
            import zarr

            path = self._folder / STORE
            if not path.is_dir():
                raise OutputError(f"{path} is missing")
            group: Any = zarr.open_group(path, mode="r+")
            arrays = {name: group[name] for name in _TYPES}
            for name, array in arrays.items():
                if array.shape != (self._count, *self._shapes[name]) or array.dtype != _TYPES[name]:
                    raise OutputError(f"{path / name} is {array.dtype} of shape {array.shape}, set.json says otherwise")
            self._arrays = arrays
        return self._arrays

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self._folder / STORE} cannot be written: {error.strerror or error}",
            hint="check the free space and the permissions",
        )

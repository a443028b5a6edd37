"""The set that is converted: verified, its records checked, its pictures read one pair at a time.

A set may come from anyone. Nothing in it becomes a path, a file name or a size before it was checked: names of
files are made from the pair's number, and pictures must be what their record says.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import InputError, OutputError
from msdm_engine.inputs.picture_header import picture_header
from msdm_engine.output.records import MANIFEST_FILE, NOTICE, SET_FILE, check_is_folder, read_header, read_records
from msdm_engine.output.verify import verify_set
from msdm_engine.pairs import MAX_SIDE_PX, MIN_SIDE_PX

MAX_TEXT_CHARACTERS = 4096
MAX_SEED = 2**64 - 1
METADATA = ("assay", "indication", "description")
_AGAIN = "restore the file, or generate the set again"
_STILL = "let nothing write to the set while it is converted"


@dataclass(frozen=True)
class Provenance:
    """What every picture carries on: the notice, what made it, and the licence of the training data."""

    notice: str
    bundle: str
    bundle_sha256: str
    data: str
    data_licence: str
    data_source: str

    def to_json(self) -> dict[str, str]:
        """As a JSON object."""
        return dict(asdict(self))


@dataclass(frozen=True)
class SetPair:
    """One pair of a verified set; its record is checked, its pictures are checked when they are read.

    Args:
        folder: of the set.
        record: its line of the manifest.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def index(self) -> int:
        """Number of the pair in the set."""
        return int(self.record["index"])

    @property
    def name(self) -> str:
        """The number as six digits or more: the only name that a pair has."""
        return f"{self.index:06d}"

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.record["height_px"], self.record["width_px"]

    @property
    def metadata(self) -> dict[str, str]:
        """Assay, indication and description; empty where not given."""
        return {key: self.record["metadata"].get(key, "") for key in METADATA}

    def image_png(self) -> bytes:
        """The picture as it was written, with its own provenance: PNG, 8 bits, RGB. Raises InputError as `image`."""
        return self._file("image", bits=8, grey=False)

    def mask_png(self) -> bytes:
        """The instance map as it was written: PNG, 16 bits, grey. Raises InputError as :meth:`image`."""
        return self._file("mask", bits=16, grey=True)

    def image(self) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB.

        Raises:
            InputError: the file is no longer what was verified, or not a picture of the kind and size of its record.
        """
        pixels = _decoded(self.image_png(), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, self._path("image"))
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)

    def instances(self) -> NDArray[np.uint16]:
        """[H, W] uint16 instance map, labels as they were written, 0 is background. Raises InputError as `image`."""
        path = self._path("mask")
        labels = _decoded(self.mask_png(), cv2.IMREAD_UNCHANGED, path)
        if labels.shape != self.size_px or labels.dtype != np.uint16:
            raise InputError(f"{path} was decoded as {labels.dtype} of shape {labels.shape}", hint=_AGAIN)
        return np.asarray(labels, np.uint16)

    def _path(self, kind: str) -> Path:
        return self.folder / f"{kind}s" / f"{self.name}.png"

    def _file(self, kind: str, *, bits: int, grey: bool) -> bytes:
        path = self._path(kind)
        try:
            data = path.read_bytes()
            header = picture_header(data)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}", hint=_AGAIN) from error
        if hashlib.sha256(data).hexdigest() != self.record[f"{kind}_sha256"]:
            raise InputError(f"{path} has changed since the set was verified", hint=_STILL)
        found = (header.kind, header.bits, header.grey, (header.height, header.width))
        if found != ("PNG", bits, grey, self.size_px):
            raise InputError(
                f"{path} is not the {kind} of its record: {header.kind}, {header.bits} bits, "
                f"{'grey' if header.grey else 'colours'}, {header.height} x {header.width} px",
                note=f"PNG, {bits} bits, {'grey' if grey else 'colours'}, {self.size_px[0]} x {self.size_px[1]} px",
                hint=_AGAIN,
            )
        return data


@dataclass(frozen=True)
class SetPairs:
    """The pairs of a verified set in the order of their numbers, 0 to n - 1; read anew, one at a time, by each ``for``.

    Args:
        folder: of the set.
        count: n.
    """

    folder: Path
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[SetPair]:
        path, number = self.folder / MANIFEST_FILE, 0
        for record in read_records(self.folder):
            if record is None or record["index"] != number:
                break
            _check_record(record, path)
            yield SetPair(self.folder, record)
            number += 1
        if number != self.count:
            raise InputError(f"{path} has changed since the set was verified", hint=_STILL)


def open_set(folder: Path) -> tuple[SetPairs, Provenance]:
    """Verifies a set, every file by its hash, and checks its header and records.

    Raises:
        InputError: no set, an empty one, pairs missing, a file changed, missing or not listed, or a record or header
            that is not legal; names the first such file or key.
    """
    try:
        header = read_header(folder)
        check_is_folder(folder, header)
        found = verify_set(folder)
    except OutputError as error:  # to this command a set is input
        raise InputError(error.what, note=error.note, hint=error.hint) from error
    if found.problems:
        raise InputError(
            f"set {folder} is damaged or not whole: {found.problems[0]}",
            note=f"{len(found.problems)} problem(s); `msdm-engine verify {folder}` lists them",
            hint="complete it with the command that made it and --resume, or restore the file",
        )
    pairs = SetPairs(folder, found.expected)
    if not len(pairs):
        raise InputError(f"set {folder} holds no pair", hint="generate some with `msdm-engine sample`")
    for _ in pairs:  # each record is checked before anything is written
        pass
    return pairs, _provenance(header, folder / SET_FILE)


def _provenance(header: dict[str, Any], path: Path) -> Provenance:
    def text(group: str, key: str) -> str:
        values = header.get(group)
        found = values.get(key) if isinstance(values, dict) else None
        if not _is_text(found) or not found:
            raise InputError(
                f"{path} is damaged: {group}.{key} is {str(found)[:60]!r}",
                note="every format carries on which bundle made the pairs, and under which data licence",
                hint=_AGAIN,
            )
        return str(found)

    bundle, data = "bundle", "data"
    return Provenance(
        NOTICE,
        text(bundle, "name"),
        text(bundle, "sha256"),
        text(data, "name"),
        text(data, "licence"),
        text(data, "source"),
    )


def _check_record(record: dict[str, Any], path: Path) -> None:
    metadata, colour = record.get("metadata"), record.get("colour")
    legal = {
        "seed": _is_whole(record.get("seed"), 0, MAX_SEED),
        "height_px": _is_whole(record.get("height_px"), MIN_SIDE_PX, MAX_SIDE_PX),
        "width_px": _is_whole(record.get("width_px"), MIN_SIDE_PX, MAX_SIDE_PX),
        "morphology": _is_text(record.get("morphology")),
        "metadata": isinstance(metadata, dict) and all(_is_text(metadata.get(key, "")) for key in METADATA),
        "colour": isinstance(colour, dict)
        and all(_is_region(colour.get(region)) for region in ("foreground", "background")),
    }
    for key, is_legal in legal.items():
        if not is_legal:
            raise InputError(
                f"{path}, pair {record['index']}: {key} is {str(record.get(key))[:80]}, which is not legal", hint=_AGAIN
            )
    try:
        json.dumps(record, allow_nan=False)
    except ValueError as error:
        raise InputError(f"{path}, pair {record['index']}: {error}", hint=_AGAIN) from error


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high  # JSON's true is an int to Python


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def _is_region(region: Any) -> bool:
    """None, or mean and standard deviation of R, G, B."""
    return region is None or (
        isinstance(region, dict)
        and all(
            isinstance(region.get(key), list)
            and len(region[key]) == 3
            and all(type(value) in (int, float) and math.isfinite(value) for value in region[key])
            for key in ("mean", "std")
        )
    )


def _decoded(data: bytes, flags: int, path: Path) -> NDArray[Any]:
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{path} cannot be decoded: {error}", hint=_AGAIN) from error
    if array is None:
        raise InputError(f"{path} cannot be decoded", hint=_AGAIN)
    return np.asarray(array)

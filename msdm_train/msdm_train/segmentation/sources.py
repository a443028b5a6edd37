"""Where a segmenter's crops come from: fields of a pack, folders, pictures in memory, and mixtures of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from msdm_engine.errors import InputError, RequestError
from msdm_engine.inputs.masks import read_instances, read_rgb
from msdm_train.data.batches import window_place
from msdm_train.data.pack import Pack
from msdm_train.evaluation.samples import Sample

Picture = tuple[np.ndarray, np.ndarray]


class Source(Protocol):
    """Lends windows; all randomness comes from the generator that it is given."""

    @property
    def identity(self) -> dict[str, Any]:
        """What it holds, as plain JSON: a training goes on only with an equal one, and its checkpoint says it."""
        ...

    @property
    def smallest_px(self) -> int:
        """Shortest side of its pictures; crops are no larger."""
        ...

    def window(self, rng: np.random.Generator, side_px: int) -> Picture:
        """A square window, [S, S, 3] uint8 and [S, S] uint16, with S the smaller of ``side_px`` and its picture."""
        ...


class PackFields:
    """Fields of a pack, named, or all of a split. A window's centre is drawn uniformly over the regions' area."""

    def __init__(self, pack: Pack, fields: Sequence[str] | None = None, *, split: str = "train") -> None:
        by_name = {field.id: field for field in pack.info.fields}
        names = [field.id for field in pack.split(split)] if fields is None else list(fields)
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise InputError(f"{pack.info.name} has no field {unknown[0]}", note=f"it has {', '.join(sorted(by_name))}")
        self._pack = pack
        self._fields = [by_name[name] for name in sorted(names)]
        self._places = [(field, region) for field in self._fields for region in field.regions]
        if not self._places:
            raise InputError(f"no field of {pack.info.name} is chosen", hint="name fields, or another split")
        area = np.array([(r.y1 - r.y0) * (r.x1 - r.x0) for _, r in self._places])
        self._cumulative = np.cumsum(area) / area.sum()

    @property
    def identity(self) -> dict[str, Any]:
        """Data set, licence and fields."""
        info = self._pack.info
        return {"pack": info.name, "licence": info.licence, "fields": [field.id for field in self._fields]}

    @property
    def smallest_px(self) -> int:
        """Of the regions."""
        return min(min(r.y1 - r.y0, r.x1 - r.x0) for _, r in self._places)

    def window(self, rng: np.random.Generator, side_px: int) -> Picture:
        """A window whose centre lies in the drawn region; it may reach into neighbours but never into a hole."""
        field, region = self._places[_drawn(self._cumulative, rng)]
        y, x, side_px = window_place(field, region, side_px, rng)
        return self._pack.window(field.id, y, x, y + side_px, x + side_px)


class Samples:
    """Pictures in memory, each as likely as any other."""

    def __init__(self, samples: Sequence[Sample], name: str) -> None:
        if not samples:
            raise InputError(f"{name} holds no picture")
        self._samples, self._name = tuple(samples), name
        digest = hashlib.sha256()
        for sample in samples:
            digest.update(sample.image.tobytes() + sample.instances.tobytes())
        self._sha256 = digest.hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """Their name, number and SHA-256 of their pixels."""
        return {"samples": self._name, "pictures": len(self._samples), "sha256": self._sha256}

    @property
    def smallest_px(self) -> int:
        """Of all pictures."""
        return min(min(sample.instances.shape) for sample in self._samples)

    def window(self, rng: np.random.Generator, side_px: int) -> Picture:
        """From a picture and a place that are drawn uniformly."""
        sample = self._samples[int(rng.integers(len(self._samples)))]
        return _cut((sample.image, sample.instances), rng, side_px)


class Folder:
    """``images/`` and ``masks/`` with equal stems, as ``msdm-engine sample`` writes them; read as they are needed.

    Raises:
        InputError: no pictures, a picture without a mask, or, when it is read, of another size than its mask.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        masks = {path.stem: path for path in sorted((folder / "masks").glob("*")) if path.is_file()}
        images = sorted(path for path in (folder / "images").glob("*") if path.is_file())
        if not images:
            raise InputError(f"{folder / 'images'} holds no pictures", note="legal: a folder with images/ and masks/")
        for image in images:
            if image.stem not in masks:
                raise InputError(f"{image} has no mask", note=f"expected {folder / 'masks' / image.stem}.png")
        self._files = [(image, masks[image.stem]) for image in images]
        self._smallest_px = min(min(read_instances(mask).shape) for _, mask in self._files)
        digest = hashlib.sha256()
        for pair in self._files:
            for path in pair:
                digest.update(path.read_bytes())
        self._sha256 = digest.hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """Its name, the number of pictures and SHA-256 of their files."""
        return {"folder": self._folder.name, "pictures": len(self._files), "sha256": self._sha256}

    @property
    def smallest_px(self) -> int:
        """Of all pictures."""
        return self._smallest_px

    def window(self, rng: np.random.Generator, side_px: int) -> Picture:
        """From a picture and a place that are drawn uniformly."""
        return _cut(self._read(int(rng.integers(len(self._files)))), rng, side_px)

    def _read(self, at: int) -> Picture:
        image_path, mask_path = self._files[at]
        image, instances = read_rgb(image_path), read_instances(mask_path)
        if image.shape[:2] != instances.shape:
            raise InputError(f"{image_path} is {image.shape[:2]} px, its mask {instances.shape}", note="equal sizes")
        return image, instances


class Mixture:
    """Each crop comes from one of several sources, drawn with the shares that are stated.

    Raises:
        RequestError: shares that are not positive or do not sum to one.
    """

    def __init__(self, parts: Sequence[tuple[Source, float]]) -> None:
        shares = [share for _, share in parts]
        if not parts or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
            raise RequestError(f"shares {shares} of a mixture", note="each above 0, and 1 in all")
        self._parts = tuple(parts)
        self._cumulative = np.cumsum(shares)

    @property
    def identity(self) -> dict[str, Any]:
        """All parts with their shares."""
        return {"mixture": [{"share": share, **source.identity} for source, share in self._parts]}

    @property
    def smallest_px(self) -> int:
        """Of all parts."""
        return min(source.smallest_px for source, _ in self._parts)

    def window(self, rng: np.random.Generator, side_px: int) -> Picture:
        """From the part that is drawn."""
        return self._parts[_drawn(self._cumulative, rng)][0].window(rng, side_px)


def _drawn(cumulative: np.ndarray, rng: np.random.Generator) -> int:
    """Number of the part drawn; ``cumulative`` are its shares, summed, whose last may fall short of 1 by rounding."""
    return min(int(np.searchsorted(cumulative, rng.random(), side="right")), len(cumulative) - 1)


def _cut(picture: Picture, rng: np.random.Generator, side_px: int) -> Picture:
    image, instances = picture
    side_px = min(side_px, *instances.shape)
    y, x = (int(rng.integers(length - side_px + 1)) for length in instances.shape)
    window = np.s_[y : y + side_px, x : x + side_px]
    return image[window], instances[window]

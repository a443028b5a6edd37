"""The packed data set: one memory-mapped safetensors file with pictures, statistics, licence and source.

Tensors ``image/<field>`` [H, W, 3] uint8, ``instances/<field>`` [H, W] uint16 and, where nuclei have classes,
``classes/<field>`` [largest label + 1] uint8; the file's metadata holds one JSON text under ``msdm`` (see
:class:`PackInfo`). No pickle, and a crop reads only its own rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from msdm_engine.conditions.colour import Colour, colour_from_image
from msdm_engine.conditions.maps import class_maps_from_instances, maps_from_instances
from msdm_engine.contract import IMAGE_CHANNELS, MAP_CHANNELS
from msdm_engine.errors import InputError
from msdm_train.data.reader import Field, Reader, Region

FORMAT_VERSION = 1

Classes = Mapping[int, int] | np.ndarray | None


@dataclass(frozen=True)
class FieldInfo:
    """What the pack knows of a field without reading its pixels."""

    id: str
    split: str
    height_px: int
    width_px: int
    nuclei: int
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class PackInfo:
    """Description of a pack.

    Args:
        n_classes: nucleus classes; 0 for none.
        statistics: over train pixels: ``state_mean`` and ``state_std`` of the state channels in [-1, 1],
            ``colour_basis`` and ``component_std``: the principal axes of RGB, each a row, and the spread along each,
            and ``presets``: for each train description its tags, tiles and mean colour (8-bit units).
    """

    name: str
    licence: str
    source: str
    fields: tuple[FieldInfo, ...]
    statistics: dict[str, Any]
    n_classes: int = 0


def state_of(image: np.ndarray, instances: np.ndarray, classes: Classes, n_classes: int) -> np.ndarray:
    """The diffusion state of a picture: RGB, nuclear maps and class maps.

    Args:
        image: [H, W, 3] uint8.
        instances: [H, W] instance map.
        classes: class of each label; not read when ``n_classes`` is 0.

    Returns:
        [6 + n_classes, H, W] float64 in [-1, 1].
    """
    parts: list[np.ndarray] = [image.transpose(2, 0, 1) / 127.5 - 1, maps_from_instances(instances)]
    if n_classes:
        parts.append(class_maps_from_instances(instances, classes if classes is not None else {}, n_classes))
    return np.concatenate(parts)


def write_pack(reader: Reader, path: Path) -> PackInfo:
    """Packs all fields of a reader into ``path``, atomically."""
    fields = list(reader.fields())
    if not any(field.split == "train" for field in fields):
        raise InputError(f"{reader.name} has no field in the split train", hint="assign fields to splits")
    infos = tuple(_info(field) for field in fields)
    train = [field for field in fields if field.split == "train"]
    n_classes = _count_classes(fields)
    statistics = _statistics(train, n_classes)
    info = PackInfo(reader.name, reader.licence, reader.source, infos, statistics, n_classes)
    tensors = {}
    for field in fields:
        tensors[f"image/{field.id}"] = np.ascontiguousarray(field.image)
        tensors[f"instances/{field.id}"] = np.ascontiguousarray(field.instances)
        if field.classes:
            table = np.zeros(max(field.classes) + 1, np.uint8)
            table[list(field.classes)] = list(field.classes.values())
            tensors[f"classes/{field.id}"] = table
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, temporary, metadata={"msdm": json.dumps({"format": FORMAT_VERSION, **asdict(info)})})
    os.replace(temporary, path)
    return info


def _info(field: Field) -> FieldInfo:
    height, width = field.instances.shape
    nuclei = int(np.count_nonzero(np.unique(field.instances)))
    return FieldInfo(field.id, field.split, height, width, nuclei, field.regions)


def _count_classes(fields: list[Field]) -> int:
    """Number of nucleus classes; a source has them in every field or in none."""
    without = [field.id for field in fields if field.classes is None]
    if without and len(without) < len(fields):
        raise InputError(f"field {without[0]} has no nucleus classes, others have", note="give all fields classes")
    return 0 if without else 1 + max((max(f.classes.values(), default=0) for f in fields if f.classes), default=0)


def _statistics(train: list[Field], n_classes: int) -> dict[str, Any]:
    channels = (*IMAGE_CHANNELS, *MAP_CHANNELS, *(f"class {i}" for i in range(n_classes)))
    total, squares, count = np.zeros(len(channels)), np.zeros(len(channels)), 0
    products = np.zeros((3, 3))
    presets: dict[str, dict[str, Any]] = {}
    for field in train:
        for region in field.regions:
            window = np.s_[region.y0 : region.y1, region.x0 : region.x1]
            image, instances = field.image[window], field.instances[window]
            state = state_of(image, instances, field.classes, n_classes)
            total += state.sum((1, 2))
            squares += (state**2).sum((1, 2))
            rgb = state[:3].reshape(3, -1)
            products += rgb @ rgb.T
            count += instances.size
            preset = presets.setdefault(region.description, {"tags": region.tags, "colours": []})
            preset["colours"].append(colour_from_image(image, instances))
    mean = total / count
    variance = squares / count - mean**2
    constant = [name for name, v in zip(channels, variance, strict=True) if not v > 1e-9]
    if constant:  # a data scale of zero: the loss would divide by it
        raise InputError(
            f"the train pixels do not vary in {', '.join(constant)}", note="training needs pictures with nuclei"
        )
    std = np.sqrt(variance)
    basis, component_std = principal_axes(products / count - np.outer(mean[:3], mean[:3]))
    return {
        "state_mean": mean.tolist(),
        "state_std": std.tolist(),
        "colour_basis": basis.tolist(),
        "component_std": component_std.tolist(),
        "presets": {text: _preset(p["tags"], p["colours"]) for text, p in sorted(presets.items())},
    }


def principal_axes(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors of a covariance [n, n] as rows, largest spread first, and the spread (std) along each: [n, n], [n].

    Each row's largest entry is positive, so that equal data gives equal rows. A direction without spread gets a
    thousandth of the largest: a data scale of zero would be divided by.
    """
    variances, vectors = np.linalg.eigh(covariance)
    std = np.sqrt(variances[::-1].clip(0))
    rows = vectors.T[::-1]
    signs = np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(1)])
    return rows * signs[:, None], np.maximum(std, 1e-3 * std[0])


def _preset(tags: dict[str, str], colours: list[Colour]) -> dict[str, Any]:
    """Mean colour over the tiles of one description."""
    preset: dict[str, Any] = {"tags": tags, "tiles": len(colours)}
    for region in ("foreground", "background"):
        found = [getattr(c, region) for c in colours if getattr(c, region) is not None]
        if found:
            preset[region] = {
                "mean": np.mean([f.mean for f in found], 0).round(2).tolist(),
                "std": np.mean([f.std for f in found], 0).round(2).tolist(),
            }
    return preset


class Pack:
    """A packed data set, opened for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = safe_open(path, framework="numpy")
            raw = json.loads((self._file.metadata() or {})["msdm"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputError(
                f"{path} is not a packed data set: {error}", hint="make one with `msdm-train prepare SOURCE --out PACK`"
            ) from error
        if raw.pop("format") != FORMAT_VERSION:
            raise InputError(f"{path} has an unknown format version", hint="prepare the data again")
        fields = []
        for entry in raw.pop("fields"):
            regions = tuple(Region(**region) for region in entry.pop("regions"))
            fields.append(FieldInfo(**entry, regions=regions))
        self.info = PackInfo(**raw, fields=tuple(fields))

    def __reduce__(self) -> tuple[type[Pack], tuple[Path]]:
        """A worker process opens the file anew."""
        return Pack, (self.path,)

    def split(self, name: str) -> tuple[FieldInfo, ...]:
        """The fields of one split."""
        return tuple(field for field in self.info.fields if field.split == name)

    def classes(self, field_id: str) -> np.ndarray | None:
        """[largest label + 1] uint8 class of each label of a field; None for a pack without classes."""
        return self._file.get_tensor(f"classes/{field_id}") if self.info.n_classes else None

    def window(self, field_id: str, y0: int, x0: int, y1: int, x1: int) -> tuple[np.ndarray, np.ndarray]:
        """Picture [h, w, 3] uint8 and instance map [h, w] uint16 of a window, copied from the mapped file."""
        image = self._file.get_slice(f"image/{field_id}")[y0:y1, x0:x1]
        return image, self._file.get_slice(f"instances/{field_id}")[y0:y1, x0:x1]

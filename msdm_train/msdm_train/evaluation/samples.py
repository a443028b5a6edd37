"""Pictures with masks, real or generated, that the sections of the evaluation compare."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msdm_train.data.crops import Crop, group_of


@dataclass(frozen=True)
class Sample:
    """A picture, its mask and where it belongs.

    Args:
        image: [H, W, 3] uint8 RGB.
        instances: [H, W] uint16 instance map: annotated, asked for, or decoded where the layout was invented.
        field: field of view of the real crop, or of the crop that lent a generated one its conditions.
        group: its tags joined, ``stain-architecture-size``: see :func:`~msdm_train.data.crops.group_of`.
        crop: number of that crop in its list of crops.
        seed: of a generated picture; -1 for a real one.
    """

    image: np.ndarray
    instances: np.ndarray
    field: str
    group: str
    crop: int
    seed: int = -1


def real_samples(crops: Sequence[Crop]) -> list[Sample]:
    """The real crops themselves."""
    return [Sample(c.image, c.instances, c.field, group_of(c), i) for i, c in enumerate(crops)]


def save_samples(path: Path, samples: Sequence[Sample], key: str) -> None:
    """Writes samples of one size as one ``.npz``, atomically; ``key`` says what they were made from."""
    meta = [{"field": s.field, "group": s.group, "crop": s.crop, "seed": s.seed} for s in samples]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(
            file,
            image=np.stack([s.image for s in samples]),
            instances=np.stack([s.instances for s in samples]),
            meta=np.array(json.dumps({"key": key, "samples": meta})),
        )
    os.replace(temporary, path)


def load_samples(path: Path, key: str) -> list[Sample] | None:
    """Reads what :func:`save_samples` wrote; None where there is no file, or one made from something else."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        meta = json.loads(str(stored["meta"]))
        if meta["key"] != key:
            return None
        image, instances = stored["image"], stored["instances"]
    return [Sample(i, m, **s) for i, m, s in zip(image, instances, meta["samples"], strict=True)]

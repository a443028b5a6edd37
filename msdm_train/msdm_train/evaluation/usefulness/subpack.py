"""The file that one cell reads: its training fields and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from msdm_engine.errors import InputError
from msdm_train.data.pack import FieldInfo, Pack, write_pack
from msdm_train.data.reader import Field


class SubReader:
    """Some fields of a pack, all as split train; implements :class:`msdm_train.data.reader.Reader`."""

    def __init__(self, pack: Pack, names: Sequence[str]) -> None:
        known = {field.id: field for field in pack.info.fields}
        for name in names:
            if name not in known or known[name].split == "test":
                raise InputError(f"field {name} is not among the fields of train and val")
        self._pack, self._fields = pack, [known[name] for name in names]
        self.name, self.licence, self.source = pack.info.name, pack.info.licence, pack.info.source

    def fields(self) -> Iterator[Field]:
        """Each field once, in the order of the names."""
        for info in self._fields:
            yield read_field(self._pack, info)


def read_field(pack: Pack, info: FieldInfo) -> Field:
    """A whole field of a pack, as split train."""
    image, instances = pack.window(info.id, 0, 0, info.height_px, info.width_px)
    table = pack.classes(info.id)
    classes = None if table is None else {int(i): int(table[i]) for i in np.unique(instances) if i}
    return Field(info.id, "train", image, instances, info.regions, classes)


def open_subpack(pack: Pack, names: Sequence[str], path: Path) -> Pack:
    """The sub-pack of these fields at ``path``, written where it is missing or holds other fields."""
    if path.is_file():
        found = Pack(path)
        if [field.id for field in found.info.fields] == list(names):
            return found
    write_pack(SubReader(pack, names), path)
    return Pack(path)

"""Arrays of a whole set in one NPY file, written row by row, and what stands beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from msdm_engine.convert.format import Conversion
from msdm_engine.convert.source import SetPair
from msdm_engine.errors import InputError

INFO_FILE = "info.json"

Append = Callable[[NDArray[Any]], None]


@contextmanager
def npy_rows(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> Iterator[Append]:
    """Writes an NPY file of ``shape`` by its rows, of which one is in memory; read it with ``mmap_mode="r"``.

    Plain writes, no memory map: on a full disk a write fails with an error, while a map kills the process.

    Yields:
        a function that appends one row of ``shape[1:]``; it must be called ``shape[0]`` times.
    """
    kind = np.dtype(dtype)
    with path.open("xb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

        def append(row: NDArray[Any]) -> None:
            file.write(np.ascontiguousarray(row, kind).tobytes())

        yield append


def one_size(pairs: Iterable[SetPair], format_name: str) -> tuple[int, int]:
    """Height and width of all pairs; an InputError that names the sizes where there are several."""
    sizes = Counter(pair.size_px for pair in pairs)
    if len(sizes) > 1:
        found = ", ".join(f"{h} x {w} px ({count} pairs)" for (h, w), count in sorted(sizes.items())[:6])
        raise InputError(
            f"the set has pairs of {len(sizes)} sizes: {found}{', ...' if len(sizes) > 6 else ''}",
            note=f"{format_name} is one array, whose pictures have one size",
            hint="generate pairs of one size, or choose another format",
        )
    return next(iter(sizes))


def write_info(conversion: Conversion, **more: Any) -> None:
    """``info.json``: where the arrays come from and what their numbers mean, as NPY holds numbers only."""
    info = {
        **conversion.provenance.to_json(),
        "nucleus_class": conversion.nucleus_class,
        **more,
    }
    (conversion.folder / INFO_FILE).write_text(json.dumps(info, indent=1) + "\n")

"""Area, box and centroid of each nucleus of an instance map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Regions:
    """One row for each nucleus, in ascending order of the labels.

    Args:
        labels: [n] int64, as in the instance map.
        area_px: [n] int64, pixels.
        box: [n, 4] int64: x, y, width, height in px of the smallest rectangle of pixels that holds the nucleus.
        centroid: [n, 2] float64: x, y of the centre of mass, the centre of the first pixel being (0, 0).
    """

    labels: NDArray[np.int64]
    area_px: NDArray[np.int64]
    box: NDArray[np.int64]
    centroid: NDArray[np.float64]


def regions_of(instances: NDArray[np.uint16]) -> Regions:
    """Measures each nucleus; a nucleus in several pieces is one row.

    Args:
        instances: [H, W] uint16, 0 is background.
    """
    ys, xs = np.nonzero(instances)
    of = instances[ys, xs].astype(np.int64)
    area = np.bincount(of)
    labels = np.flatnonzero(area)
    top, bottom = _first_and_last(ys, of, len(area))
    xs_by_column, ys_by_column = np.nonzero(instances.T)
    left, right = _first_and_last(xs_by_column, instances[ys_by_column, xs_by_column], len(area))
    box = np.stack([left, top, right - left + 1, bottom - top + 1], 1)[labels]
    mass = np.stack([np.bincount(of, xs), np.bincount(of, ys)], 1)[labels]
    return Regions(labels, area[labels], box, mass / area[labels, None])


def _first_and_last(
    ascending: NDArray[np.intp], of: NDArray[np.integer], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Smallest and largest coordinate of each label, from pixels in ascending order of it."""
    first, last = np.zeros(count, np.int64), np.zeros(count, np.int64)
    last[of] = ascending  # of assignments to one place, NumPy keeps the last
    first[of[::-1]] = ascending[::-1]
    return first, last

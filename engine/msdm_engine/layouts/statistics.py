"""Morphology of an instance map in numbers: what layouts are compared with real tiles by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Rows of the distance matrix held at once.
CHUNK = 512


@dataclass(frozen=True)
class Nuclei:
    """Moments of each nucleus of a map, in the order of its labels.

    Args:
        area_px: [n] pixels.
        centroid: [n, 2] (x, y) in pixels.
        aspect_ratio: [n] ratio of the principal axes (second moments, each pixel a unit square).
        angle: [n] radians of the long axis, from +x towards +y, in [-pi/2, pi/2].
        cut: [n] bool, touches the border of the map.
    """

    area_px: NDArray[np.int64]
    centroid: NDArray[np.float64]
    aspect_ratio: NDArray[np.float64]
    angle: NDArray[np.float64]
    cut: NDArray[np.bool_]


def nuclei_of(labels: NDArray[np.integer]) -> Nuclei:
    """Measures all nuclei of an [H, W] instance map at once; gaps in the numbering are legal."""
    ys, xs = np.nonzero(labels)
    names, index = np.unique(labels[ys, xs], return_inverse=True)
    n = len(names)
    area = np.bincount(index, minlength=n)
    cx, cy = np.bincount(index, xs, n) / area, np.bincount(index, ys, n) / area
    dx, dy = xs - cx[index], ys - cy[index]
    # A pixel is a unit square, not a point: it adds 1/12 to the variances.
    xx = np.bincount(index, dx * dx, n) / area + 1 / 12
    yy = np.bincount(index, dy * dy, n) / area + 1 / 12
    xy = np.bincount(index, dx * dy, n) / area
    middle, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return Nuclei(
        area,
        np.stack([cx, cy], axis=1),
        np.sqrt((middle + spread) / (middle - spread)),
        0.5 * np.arctan2(2 * xy, xx - yy),
        np.isin(names, edge),
    )


@dataclass(frozen=True)
class MapStatistics:
    """Statistics of one map. Areas and aspect ratios are of whole nuclei (not cut by the border).

    Args:
        count, count_per_mpx: all nuclei; in a million pixels.
        area_median_px, area_q25_px, area_q75_px: quartiles.
        aspect_median, aspect_q25, aspect_q75: quartiles.
        foreground: share of pixels.
        neighbour: median distance to the nearest centroid over the square root of the median area.
        touching: share of nuclei with a pixel beside one of another nucleus (4-neighbours).
        cut: share of nuclei that the border cuts.
        alignment: mean of cos 2(a - b), a and b the long axes of a nucleus and its nearest neighbour:
            1 parallel, 0 random.
        beside: mean of -cos 2(a - d), d the direction to the nearest neighbour: 1 side by side as in a
            palisade, -1 end to end, 0 random.
    """

    count: int
    count_per_mpx: float
    area_median_px: float
    area_q25_px: float
    area_q75_px: float
    aspect_median: float
    aspect_q25: float
    aspect_q75: float
    foreground: float
    neighbour: float
    touching: float
    cut: float
    alignment: float
    beside: float


def statistics_of(labels: NDArray[np.integer]) -> MapStatistics:
    """Statistics of an [H, W] instance map; NaN where too few nuclei define one."""
    nuclei = nuclei_of(labels)
    n, whole = len(nuclei.area_px), ~nuclei.cut
    area, aspect = _quartiles(nuclei.area_px[whole]), _quartiles(nuclei.aspect_ratio[whole])
    distance, nearest = _nearest(nuclei.centroid)
    toward = nuclei.centroid[nearest] - nuclei.centroid
    direction = np.arctan2(toward[:, 1], toward[:, 0])
    defined = n > 1
    return MapStatistics(
        count=n,
        count_per_mpx=n / labels.size * 1e6,
        area_median_px=area[1],
        area_q25_px=area[0],
        area_q75_px=area[2],
        aspect_median=aspect[1],
        aspect_q25=aspect[0],
        aspect_q75=aspect[2],
        foreground=float(np.count_nonzero(labels) / labels.size),
        neighbour=float(np.median(distance) / np.sqrt(area[1])) if defined else float("nan"),
        touching=len(touching_labels(labels)) / n if n else float("nan"),
        cut=float(nuclei.cut.mean()) if n else float("nan"),
        alignment=float(np.cos(2 * (nuclei.angle - nuclei.angle[nearest])).mean()) if defined else float("nan"),
        beside=float(-np.cos(2 * (nuclei.angle - direction)).mean()) if defined else float("nan"),
    )


def _quartiles(values: NDArray[np.generic]) -> tuple[float, float, float]:
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    low, middle, high = np.percentile(values.astype(np.float64), [25, 50, 75]).tolist()
    return low, middle, high


def _nearest(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance to and index of the nearest other point of each of [n, 2]; itself where it is alone."""
    n = len(points)
    distance, index = np.zeros(n), np.zeros(n, np.int64)
    for start in range(0, n if n > 1 else 0, CHUNK):
        part = points[start : start + CHUNK]
        squared = ((part[:, None] - points) ** 2).sum(axis=2)
        rows = np.arange(len(part))
        squared[rows, rows + start] = np.inf
        index[start : start + CHUNK] = squared.argmin(axis=1)
        distance[start : start + CHUNK] = np.sqrt(squared[rows, index[start : start + CHUNK]])
    return distance, index


def touching_labels(labels: NDArray[np.integer]) -> set[int]:
    """Labels with a pixel beside a pixel of another label."""
    touching: set[int] = set()
    for a, b in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        meet = (a != b) & (a != 0) & (b != 0)
        touching.update(a[meet].tolist(), b[meet].tolist())
    return touching

"""The HV maps of one nucleus as a line fit: what lets the decoder compare a pixel, or a fragment, with a nucleus.

Within a nucleus HoVer-Net's maps are piecewise linear in the position: ``x = c + B min(h, 0) + A max(h, 0)``, with
the centre of mass c and the extents B and A of its negative and positive side in pixels; likewise y and the
vertical map. The fit needs sums over pixels only. Sums of two fragments add up, so that a merged nucleus is fitted
without another look at its pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Weight of the prior extent, in units of squared map values: as much as one pixel half-way to the edge has. Keeps
#: a side without pixels, or a nucleus one pixel wide, from a division by zero; forgotten after a few pixels.
_PRIOR_WEIGHT = 0.05

#: No nucleus extends less than half a pixel from its centre.
_SMALLEST_EXTENT_PX = 0.5


class Sums(NamedTuple):
    """Sums over the pixels of each label. p: position along an axis, n: min(map, 0), q: max(map, 0).

    Each is [2, L] float64: horizontal and vertical axis, label. Label 0, the unlabelled pixels, has no area.
    """

    area: NDArray[np.float64]
    p: NDArray[np.float64]
    pp: NDArray[np.float64]
    n: NDArray[np.float64]
    nn: NDArray[np.float64]
    q: NDArray[np.float64]
    qq: NDArray[np.float64]
    pn: NDArray[np.float64]
    pq: NDArray[np.float64]

    @property
    def top(self) -> int:
        """The largest label."""
        return self.area.shape[1] - 1


class Fit(NamedTuple):
    """Line fit of each label, each [2, L] float64 in pixels: horizontal and vertical axis, label."""

    centre: NDArray[np.float64]
    extent_negative: NDArray[np.float64]
    extent_positive: NDArray[np.float64]


def sums_of_labels(labels: NDArray[np.int32], count: int, hv: NDArray[np.float32]) -> Sums:
    """Sums over the pixels of each label.

    Args:
        labels: [H, W] in 0..count, 0 unlabelled.
        count: the largest label.
        hv: [2, H, W] float32, horizontal and vertical map.
    """
    ys, xs = np.nonzero(labels)
    label = labels[ys, xs]
    axes = []
    for position, values in ((xs, hv[0]), (ys, hv[1])):
        p, value = position.astype(np.float64), values[ys, xs].astype(np.float64)
        n, q = np.minimum(value, 0), np.maximum(value, 0)
        terms = (np.ones_like(p), p, p * p, n, n * n, q, q * q, p * n, p * q)
        axes.append([np.bincount(label, weights=term, minlength=count + 1) for term in terms])
    return Sums(*np.stack(axes, axis=1))


def merged_sums(sums: Sums, target: NDArray[np.intp], length: int) -> Sums:
    """Sums after label i has become ``target[i]``, below ``length``."""

    def moved(term: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = [np.bincount(target, weights=row, minlength=length) for row in term]
        return np.stack(rows).astype(np.float64, copy=False)

    return Sums(*(moved(term) for term in sums))


def map_variance(sums: Sums) -> NDArray[np.float64]:
    """[L] variance of the horizontal map plus that of the vertical map over the pixels of each label."""
    area = np.maximum(sums.area, 1)
    return ((sums.nn + sums.qq) / area - ((sums.n + sums.q) / area) ** 2).sum(axis=0)


def fit_of_sums(sums: Sums) -> Fit:
    """Least squares of position on map values, for each label.

    Position is regressed on the map and not the reverse, as position has no noise in its sums. n and q are never both
    non-zero, so the normal equations are an arrow matrix and solve in closed form.
    """
    area = np.maximum(sums.area, 1)
    mean = sums.p / area
    prior = np.sqrt(area) / 2
    nn, qq = sums.nn + _PRIOR_WEIGHT, sums.qq + _PRIOR_WEIGHT
    pn = sums.pn - mean * sums.n + _PRIOR_WEIGHT * prior
    pq = sums.pq - mean * sums.q + _PRIOR_WEIGHT * prior
    centre = -(sums.n * pn / nn + sums.q * pq / qq) / (area - sums.n**2 / nn - sums.q**2 / qq)
    return Fit(
        mean + centre,
        np.maximum((pn - centre * sums.n) / nn, _SMALLEST_EXTENT_PX),
        np.maximum((pq - centre * sums.q) / qq, _SMALLEST_EXTENT_PX),
    )


def fragment_misfit(
    sums: Sums, fit: Fit, fragment: NDArray[np.integer], nucleus: NDArray[np.integer]
) -> NDArray[np.float64]:
    """How badly the pixels of each fragment fit the nucleus beside it: root mean square, in units of its extent.

    Args:
        fragment: [M] label whose pixels are judged.
        nucleus: [M] label whose fit judges them.
    """
    centre, b, a = (term[:, nucleus] for term in fit)
    area, p, pp, n, nn, q, qq, pn, pq = (term[:, fragment] for term in sums)
    # The sum of (p - c - B n - A q)^2, multiplied out; n q is zero everywhere.
    squares = pp - 2 * (centre * p + b * pn + a * pq) + 2 * centre * (b * n + a * q)
    squares += centre**2 * area + b**2 * nn + a**2 * qq
    relative = squares / (area * ((a + b) / 2) ** 2)
    return np.sqrt(np.maximum(relative, 0).sum(axis=0))


def pixel_misfit(
    fit: Fit, label: NDArray[np.integer], ys: NDArray[np.intp], xs: NDArray[np.intp], hv: NDArray[np.float32]
) -> NDArray[np.float64]:
    """[M] squared difference between the maps that ``label`` would give each pixel and the maps it has.

    Args:
        label: [M] nucleus that each pixel is compared with.
        ys, xs: [M] the pixels.
        hv: [2, M] float32, their map values.
    """
    total = np.zeros(label.size)
    for axis, position in enumerate((xs, ys)):
        offset = position - fit.centre[axis, label]
        extent = np.where(offset < 0, fit.extent_negative[axis, label], fit.extent_positive[axis, label])
        total += (offset / extent - hv[axis]) ** 2
    return total

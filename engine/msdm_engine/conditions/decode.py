"""Maps -> instance map: nuclei from foreground, horizontal and vertical maps.

The idea is HoVer-Net's post-processing (Graham et al. 2019, section 3.2): within a nucleus the maps rise from left
to right and from top to bottom, and where two nuclei touch they fall. There, gradients give markers and a watershed
floods from them. Here, the same gradients cut the foreground into fragments, and what a nucleus's maps must look
like (:mod:`hv_fit`) decides the rest: which fragments are one nucleus, and whose each remaining pixel is. A fit
averages over all pixels of a nucleus, so noise that tears a watershed apart leaves it unmoved.
"""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.conditions.hv_fit import (
    Fit,
    Sums,
    fit_of_sums,
    fragment_misfit,
    map_variance,
    merged_sums,
    pixel_misfit,
    sums_of_labels,
)
from msdm_engine.errors import InputError, RequestError

_Scalar = TypeVar("_Scalar", bound=np.generic)

#: Chosen on the round trip of real training and validation masks, exact, with noise and blurred
#: (benchmarks/conditions.py). Smoothing of the HV maps before they are differentiated, standard deviation in pixels.
_SMOOTHING_PX = 0.8
#: A step between two neighbouring pixels parts them if the map falls (or changes across its axis) by more than this.
_CUT = 0.05
#: Smaller fragments start no nucleus; their pixels join one.
_SEED_PX = 8
#: A fragment joins the larger one beside it if its maps fit that one's within this share of its extent.
_MERGE_MISFIT = 0.5
#: Variance of both maps together within a nucleus: 0.5 in a disc, 0.33 in a line. A fragment with less than this is
#: a strip between nuclei; its pixels join one.
_SMALLEST_VARIANCE = 0.06
#: Rounds of fitting all nuclei and moving the pixels at their borders; the second settles what a merge moved.
_FITS = 2
#: A border moves by one pixel a step.
_BORDER_STEPS = 6

_AROUND = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
_SQUARE = np.ones((3, 3), np.uint8)


def instances_from_maps(
    maps: NDArray[np.floating], *, foreground_threshold: float = 0.0, min_area_px: int = 10
) -> NDArray[np.int32]:
    """Instance map of foreground, horizontal and vertical maps, exact or generated. Deterministic.

    The inverse of :func:`msdm_engine.conditions.maps.maps_from_instances` up to what maps do not say: a nucleus in
    several pieces comes back as one instance for each piece, and touching nuclei of a few pixels may be joined.

    Args:
        maps: [3, H, W] of a float type: foreground (-1 background, +1 nucleus), horizontal, vertical in [-1, 1].
            Values beyond the range are legal; generated maps have them.
        foreground_threshold: pixels with a larger foreground value belong to nuclei.
        min_area_px: smaller instances are removed, their pixels become background.

    Returns:
        [H, W] int32: 0 background, nuclei numbered from 1 without gaps, in raster order of their first pixel.

    Raises:
        InputError: another shape or dtype, or a value that is not finite.
        RequestError: ``min_area_px`` is below 1.
    """
    _check(maps, min_area_px)
    foreground = maps[0] > foreground_threshold
    if not foreground.any():
        return np.zeros(foreground.shape, np.int32)
    hv = np.asarray(maps[1:], np.float32)
    smooth = _smoothed_within(hv, foreground)
    labels, count = _without_small(_fragments(foreground, smooth), min(_SEED_PX, min_area_px))
    labels, sums = _merged(labels, sums_of_labels(labels, count, smooth))
    for _ in range(_FITS):
        labels, sums = _without_strips(labels, sums)
        _grow(labels, fit_of_sums(sums), foreground, hv)
        _move_borders(labels, fit_of_sums(sums_of_labels(labels, sums.top, smooth)), hv)
        labels, count = _without_small(labels, 1)
        labels, sums = _merged(labels, sums_of_labels(labels, count, smooth))
    labels, _ = _without_small(_with_leftovers(labels, sums.top, foreground), min_area_px)
    return _in_raster_order(labels)


def _check(maps: NDArray[np.floating], min_area_px: int) -> None:
    if maps.ndim != 3 or maps.shape[0] != 3 or not np.issubdtype(maps.dtype, np.floating):
        raise InputError(
            f"maps of shape {list(maps.shape)} and dtype {maps.dtype}",
            note="legal: [3, H, W] of a float type: foreground, horizontal, vertical",
            hint="pass one sample, without its RGB and class channels",
        )
    if not np.isfinite(maps).all():
        raise InputError(
            f"maps with {np.count_nonzero(~np.isfinite(maps))} values that are not finite",
            note="legal: finite values, about -1 to 1",
            hint="a generated sample with such values is broken: sample it again in float32",
        )
    if min_area_px < 1:
        raise RequestError(f"min_area_px is {min_area_px}", note="legal: 1 or more", hint="1 keeps every nucleus")


def _smoothed_within(hv: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Gaussian mean over foreground pixels only: background's zeros would flatten the maps towards the outline."""
    weight = foreground.astype(np.float32)
    total = np.maximum(cv2.GaussianBlur(weight, (0, 0), _SMOOTHING_PX), np.float32(1e-6))
    return np.stack([cv2.GaussianBlur(values * weight, (0, 0), _SMOOTHING_PX) / total for values in hv])


def _fragments(foreground: NDArray[np.bool_], hv: NDArray[np.float32]) -> NDArray[np.int32]:
    """Connected pieces of the foreground between which the maps fall. [H, W] int32, 0 background.

    From left to right the horizontal map of a nucleus rises and its vertical map stays; from top to bottom the
    reverse. Components live on a grid of pixels and the steps between them, [2H - 1, 2W - 1].
    """
    height, width = foreground.shape
    grid = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    grid[::2, ::2] = foreground
    step_h, step_v = np.diff(hv, axis=2)
    same = (step_h > -_CUT) & (np.abs(step_v) < _CUT)
    grid[::2, 1::2] = foreground[:, 1:] & foreground[:, :-1] & same
    step_h, step_v = np.diff(hv, axis=1)
    same = (step_v > -_CUT) & (np.abs(step_h) < _CUT)
    grid[1::2, ::2] = foreground[1:] & foreground[:-1] & same
    # Renumbered, as the numbering of cv2 is not documented to be independent of its threads.
    return _in_raster_order(
        cv2.connectedComponents(grid, connectivity=4, ltype=cv2.CV_32S)[1][::2, ::2].astype(np.int32)
    )


def _without_small(labels: NDArray[np.int32], min_area_px: int) -> tuple[NDArray[np.int32], int]:
    """Labels of at least that area, renumbered without gaps, and their number."""
    area = np.bincount(labels.ravel())
    area[0] = 0
    kept = area >= min_area_px
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels], int(kept.sum())


def _merged(labels: NDArray[np.int32], sums: Sums) -> tuple[NDArray[np.int32], Sums]:
    """Labels, each joined to the larger neighbour that its maps fit best, until none fits; and their sums."""
    pairs, chain = _adjacent(labels), np.arange(sums.top + 1)
    while len(pairs):
        area = sums.area[0]
        swap = area[pairs[:, 0]] > area[pairs[:, 1]]
        small, large = np.where(swap, pairs[:, 1], pairs[:, 0]), np.where(swap, pairs[:, 0], pairs[:, 1])
        misfit = fragment_misfit(sums, fit_of_sums(sums), small, large)
        good = np.flatnonzero(misfit < _MERGE_MISFIT)
        if not good.size:
            break
        # Worst first: of repeated assignments the last stays, which is each label's best.
        good = good[np.argsort(-misfit[good], kind="stable")]
        target = np.arange(sums.top + 1)
        target[small[good]] = large[good]
        # Targets are larger, so chains end; each pass halves them.
        while (target != target[target]).any():
            target = target[target]
        kept, target = np.unique(target, return_inverse=True)
        sums, chain, pairs = merged_sums(sums, target, kept.size), target[chain], _unique_pairs(target[pairs])
    return chain.astype(np.int32)[labels], sums


def _without_strips(labels: NDArray[np.int32], sums: Sums) -> tuple[NDArray[np.int32], Sums]:
    """Labels over which the maps vary as they do over a nucleus, renumbered; and their sums."""
    kept = map_variance(sums) >= _SMALLEST_VARIANCE
    kept[0] = True
    number = np.where(kept, np.cumsum(kept) - 1, 0).astype(np.int32)
    return number[labels], Sums(*(term[:, kept] for term in sums))


def _neighbours(grid: NDArray[_Scalar]) -> list[tuple[NDArray[_Scalar], NDArray[_Scalar]]]:
    """Views of all pairs of pixels that touch by an edge or a corner: across, down and along both diagonals."""
    return [
        (grid[:, 1:], grid[:, :-1]),
        (grid[1:], grid[:-1]),
        (grid[1:, 1:], grid[:-1, :-1]),
        (grid[1:, :-1], grid[:-1, 1:]),
    ]


def _adjacent(labels: NDArray[np.int32]) -> NDArray[np.intp]:
    """[M, 2] pairs of labels that touch, by an edge or a corner, each once, smaller label first."""
    found = []
    for one, other in _neighbours(labels):
        differ = (one != other) & (one > 0) & (other > 0)
        found.append(np.stack([one[differ], other[differ]], axis=1))
    return _unique_pairs(np.concatenate(found).astype(np.intp))


def _unique_pairs(pairs: NDArray[np.intp]) -> NDArray[np.intp]:
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _grow(labels: NDArray[np.int32], fit: Fit, foreground: NDArray[np.bool_], hv: NDArray[np.float32]) -> None:
    """Give unlabelled foreground, ring by ring, to the neighbouring nucleus that its maps fit best. In place."""
    while True:
        near = cv2.dilate((labels > 0).astype(np.uint8), _SQUARE)
        ys, xs = np.nonzero((near > 0) & foreground & (labels == 0))
        if not ys.size:
            return
        labels[ys, xs] = _best_neighbour(labels, fit, ys, xs, hv, _AROUND)


def _move_borders(labels: NDArray[np.int32], fit: Fit, hv: NDArray[np.float32]) -> None:
    """Move pixels at borders between nuclei to the one that their maps fit best. In place."""
    for _ in range(_BORDER_STEPS):
        ys, xs = _border(labels)
        best = _best_neighbour(labels, fit, ys, xs, hv, ((0, 0), *_AROUND))
        if np.array_equal(best, labels[ys, xs]):
            return
        labels[ys, xs] = best


def _border(labels: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels (ys, xs) of a nucleus that touch another nucleus, by an edge or a corner."""
    at = np.zeros(labels.shape, bool)
    for (one, other), (here, there) in zip(_neighbours(labels), _neighbours(at), strict=True):
        differ = (one != other) & (one > 0) & (other > 0)
        here |= differ
        there |= differ
    ys, xs = np.nonzero(at)
    return ys, xs


def _best_neighbour(
    labels: NDArray[np.int32],
    fit: Fit,
    ys: NDArray[np.intp],
    xs: NDArray[np.intp],
    hv: NDArray[np.float32],
    offsets: tuple[tuple[int, int], ...],
) -> NDArray[np.int32]:
    """[M] label among the neighbours at these offsets (y, x) that each pixel's maps fit best; the first of equals."""
    padded = np.pad(labels, 1)
    values = hv[:, ys, xs]
    best, least = np.zeros(ys.size, np.int32), np.full(ys.size, np.inf)
    for dy, dx in offsets:
        label = padded[ys + 1 + dy, xs + 1 + dx]
        misfit = pixel_misfit(fit, label, ys, xs, values)
        better = (label > 0) & (misfit < least)
        best[better], least[better] = label[better], misfit[better]
    return best


def _with_leftovers(labels: NDArray[np.int32], count: int, foreground: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Foreground that no fragment reached (isolated nuclei of a few pixels): each connected piece is a nucleus."""
    left = (foreground & (labels == 0)).astype(np.uint8)
    pieces = cv2.connectedComponents(left, connectivity=8, ltype=cv2.CV_32S)[1]
    return np.where(pieces > 0, pieces + count, labels).astype(np.int32)


def _in_raster_order(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    flat = labels.ravel()
    first = np.zeros(int(flat.max()) + 1, np.intp)
    first[flat[::-1]] = np.arange(flat.size)[::-1]
    number = np.zeros(first.size, np.int32)
    number[1 + np.argsort(first[1:])] = np.arange(1, first.size)
    return number[labels]

"""How far the outlines of two masks lie apart, in pixels. Smaller is better, in contrast to the other metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.metrics.overlap import check_pair

_PERCENTILE = 95.0


@dataclass(frozen=True)
class BoundaryDistance:
    """Distance from each boundary pixel of either mask to the nearest one of the other.

    Attributes:
        mean_px: mean over the boundary pixels of both masks together.
        p95_px: their 95th percentile, which a few far ones do not move as they move the maximum.
        boundary_px: boundary pixels of both masks together: the weight of ``mean_px`` when pictures are pooled.
    """

    mean_px: float
    p95_px: float
    boundary_px: int
    criterion: str = "symmetric mean and 95th percentile of distances between nuclear boundaries"


def boundary_distance(
    true: NDArray[np.integer | np.bool_], predicted: NDArray[np.integer | np.bool_]
) -> BoundaryDistance:
    """Average symmetric surface distance and 95 % Hausdorff distance of two masks, after Taha and Hanbury, *Metrics for
    evaluating 3D medical image segmentation*, BMC Medical Imaging 15 (2015), equations 20 to 22; the percentile is
    taken over the distances of both directions together. Symmetric in its arguments.

    A boundary pixel belongs to a nucleus and shares an edge with background or another nucleus, so that touching
    nuclei have a boundary between them. The border of the picture, where nuclei are cut, is none. Distances are
    Euclidean, from centre to centre of pixels.

    Two masks without boundary and with the same foreground are 0 apart. If one has a boundary and the other has none,
    or if one is all nucleus and the other all background, every distance is the picture's diagonal, the largest there
    could be.

    Args:
        true: [H, W] of an integer type or bool, 0 background.
        predicted: [H, W] likewise.

    Raises:
        InputError: the masks differ in shape, or one is not of an integer type.
    """
    check_pair(true, predicted)
    first, second = _boundary(true), _boundary(predicted)
    count = int(np.count_nonzero(first) + np.count_nonzero(second))
    if first.any() and second.any():
        distances = np.concatenate([_distance_to(second)[first], _distance_to(first)[second]])
        return BoundaryDistance(float(distances.mean()), float(np.percentile(distances, _PERCENTILE)), count)
    if count == 0 and np.array_equal(true != 0, predicted != 0):
        return BoundaryDistance(0.0, 0.0, 0)
    diagonal = math.hypot(*true.shape)
    return BoundaryDistance(diagonal, diagonal, count)


def _boundary(mask: NDArray[np.integer | np.bool_]) -> NDArray[np.bool_]:
    """[H, W] pixels of nuclei beside another label."""
    found = np.zeros(mask.shape, bool)
    across, down = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[1:] |= down
    found[:-1] |= down
    return found & (mask != 0)


def _distance_to(boundary: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[H, W] exact distance of each pixel to the nearest boundary pixel."""
    return cv2.distanceTransform((~boundary).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float64)

"""Contingency table of two instance maps: which nuclei overlap, and by how many pixels. The base of AJI and PQ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import InputError


@dataclass(frozen=True, eq=False)
class Overlap:
    """Areas of nuclei and of their overlaps, in pixels. Nuclei are numbered in ascending order of their label.

    Attributes:
        true_area: [T] int64, area of each reference nucleus.
        predicted_area: [P] int64, area of each predicted nucleus.
        true_index: [M] int64, reference nucleus of each overlapping pair, ascending.
        predicted_index: [M] int64, predicted nucleus of each overlapping pair.
        intersection: [M] int64, pixels in both, at least 1. Pairs that do not touch are not listed.
    """

    true_area: NDArray[np.int64]
    predicted_area: NDArray[np.int64]
    true_index: NDArray[np.int64]
    predicted_index: NDArray[np.int64]
    intersection: NDArray[np.int64]

    @property
    def union(self) -> NDArray[np.int64]:
        """[M] int64, pixels in either nucleus of each pair."""
        return self.true_area[self.true_index] + self.predicted_area[self.predicted_index] - self.intersection

    @property
    def iou(self) -> NDArray[np.float64]:
        """[M] float64, intersection over union of each pair, in (0, 1]."""
        return self.intersection / self.union


def overlap_of_instances(true: NDArray[np.integer], predicted: NDArray[np.integer]) -> Overlap:
    """Contingency table of two instance maps, sparse: its length is the number of overlapping pairs.

    Args:
        true: [H, W] of any integer type, 0 background, every other value one nucleus; the reference.
        predicted: [H, W] likewise; its numbering is independent of the reference's.

    Raises:
        InputError: the maps differ in shape, or one is not of an integer type.
    """
    check_pair(true, predicted)
    true_labels, true_at = np.unique(true, return_inverse=True)
    predicted_labels, predicted_at = np.unique(predicted, return_inverse=True)
    width = predicted_labels.size
    pairs, pixels = np.unique(true_at.ravel() * width + predicted_at.ravel(), return_counts=True)
    true_index, predicted_index = np.divmod(pairs, width) if width else (pairs, pairs)
    # Background takes part in the areas, not in the pairs; without it, nuclei are numbered from 0.
    true_kept, predicted_kept = true_labels != 0, predicted_labels != 0
    both = true_kept[true_index] & predicted_kept[predicted_index]
    return Overlap(
        true_area=np.bincount(true_at.ravel(), minlength=true_labels.size)[true_kept],
        predicted_area=np.bincount(predicted_at.ravel(), minlength=width)[predicted_kept],
        true_index=(np.cumsum(true_kept) - 1)[true_index[both]],
        predicted_index=(np.cumsum(predicted_kept) - 1)[predicted_index[both]],
        intersection=pixels[both],
    )


def check_pair(true: NDArray[np.integer | np.bool_], predicted: NDArray[np.integer | np.bool_]) -> None:
    """Refuse a pair of masks that cannot be compared pixel by pixel (InputError)."""
    if true.shape != predicted.shape:
        raise InputError(
            f"masks of shape {list(true.shape)} and {list(predicted.shape)} are compared",
            note="legal: equal shapes, one label a pixel",
            hint="crop or resize both alike (labels by nearest neighbour)",
        )
    for name, mask in (("reference", true), ("predicted", predicted)):
        if not (np.issubdtype(mask.dtype, np.integer) or mask.dtype == np.bool_):
            raise InputError(
                f"the {name} mask has dtype {mask.dtype}",
                note="legal: an integer type, 0 background",
                hint="decode probabilities or maps into labels first",
            )

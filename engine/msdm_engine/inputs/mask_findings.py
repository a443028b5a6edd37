"""What is unusual in instance maps and legal all the same: it is handled, and told."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class MaskFindings:
    """Counted over the masks of a group.

    Args:
        gaps: masks whose labels are not 1..n; they are renumbered.
        pieces: nuclei in several pieces (pixels connected by sides); each stays one nucleus with one centre of mass.
        holes: patches of background that one nucleus encloses; they stay background.
    """

    gaps: int = 0
    pieces: int = 0
    holes: int = 0

    def __add__(self, other: MaskFindings) -> MaskFindings:
        return MaskFindings(self.gaps + other.gaps, self.pieces + other.pieces, self.holes + other.holes)

    def text(self) -> str:
        """In words; empty where nothing is unusual."""
        told = (
            (self.gaps, "mask(s) with gaps in the numbering (renumbered)"),
            (self.pieces, "nuclei in several pieces (kept as one each)"),
            (self.holes, "hole(s) in nuclei (kept as background)"),
        )
        return ", ".join(f"{count} {what}" for count, what in told if count)


def findings_of(labels: np.ndarray, instances: np.ndarray) -> MaskFindings:
    """Findings of one mask.

    Args:
        labels: [H, W] integer labels as they are in the file.
        instances: [H, W] uint16, the same renumbered 1..n.
    """
    nuclei = int(instances.max())
    regions, first = _regions(instances)
    in_pieces = int((np.bincount(instances[first], minlength=nuclei + 1)[1:] > 1).sum())
    return MaskFindings(int(int(labels.max()) != nuclei), in_pieces, _holes(instances, regions))


def _regions(instances: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Connected regions of equal label, background included: [H, W] numbers, and one pixel of each.

    Pixels lie on the even places of a grid twice as fine; an odd place joins its two neighbours if they are equal.
    """
    height, width = instances.shape
    grid = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    grid[::2, ::2] = 1
    grid[1::2, ::2] = instances[1:] == instances[:-1]
    grid[::2, 1::2] = instances[:, 1:] == instances[:, :-1]
    _, joined = cv2.connectedComponents(grid, connectivity=4)
    regions = np.asarray(joined)[::2, ::2]
    _, places = np.unique(regions, return_index=True)
    rows, columns = np.unravel_index(places, regions.shape)
    return regions, (rows, columns)


def _holes(instances: np.ndarray, regions: np.ndarray) -> int:
    """Background regions all of whose neighbours are one nucleus, and which do not touch the border."""
    background = np.unique(regions[instances == 0])
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    candidates = np.setdiff1d(background, border)
    touching: dict[int, set[int]] = {int(region): set() for region in candidates}
    for axis in (0, 1):
        before, after = (np.delete(np.stack([regions, instances.astype(np.int32)]), at, axis + 1) for at in (-1, 0))
        for inside, outside in ((before, after), (after, before)):
            meets = (inside[0] != outside[0]) & np.isin(inside[0], candidates)
            for region, label in np.unique(np.stack([inside[0][meets], outside[1][meets]]), axis=1).T:
                touching[int(region)].add(int(label))
    return sum(len(labels) == 1 for labels in touching.values())

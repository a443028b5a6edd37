"""The instance map being drawn: nuclei are added one by one and never overlap."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import RequestError
from msdm_engine.layouts.request import MAX_NUCLEI

#: Fractional bits of the vertices handed to cv2.fillPoly.
SHIFT = 4

#: Less than this of a nucleus is not drawn: the smallest annotated piece in the real masks has about 20 px.
MIN_VISIBLE_PX = 12

#: Share of a nucleus's visible pixels that lie in its region, where the map has one.
MIN_INSIDE = 0.8


class Role(enum.IntEnum):
    """Which part of the tissue a nucleus belongs to."""

    MAIN = 0
    STROMA = 1


@dataclass
class Canvas:
    """An instance map with what is known of each nucleus; label k is entry k - 1 of the lists.

    Args:
        labels: [H, W] uint16, 0 is background.
        centres: (x, y) that each nucleus was placed at, which may lie outside the map.
        angles: radians, the long axis that was asked of each nucleus, from +x towards +y.
        across: radians, direction that each palisade nucleus should lie along; NaN elsewhere.
        roles: part of the tissue.
        region: [H, W] uint8, 1 where nuclei may lie; None is everywhere.
        foreign: [H, W] uint8, 1 where nuclei of other canvases lie; None is nowhere.
    """

    labels: NDArray[np.uint16]
    centres: list[tuple[float, float]] = field(default_factory=list)
    angles: list[float] = field(default_factory=list)
    across: list[float] = field(default_factory=list)
    roles: list[Role] = field(default_factory=list)
    region: NDArray[np.uint8] | None = None
    foreign: NDArray[np.uint8] | None = None

    @classmethod
    def empty(cls, height_px: int, width_px: int) -> Canvas:
        """A map without nuclei."""
        return cls(np.zeros((height_px, width_px), np.uint16))

    @property
    def count(self) -> int:
        """Nuclei so far."""
        return len(self.roles)

    @property
    def taken(self) -> NDArray[np.bool_]:
        """[H, W] True where a nucleus lies, of this canvas or another."""
        own = self.labels != 0
        return own if self.foreign is None else own | self.foreign.view(np.bool_)

    def clear(self) -> None:
        """Takes all nuclei off the map."""
        self.labels[:] = 0
        for record in (self.centres, self.angles, self.across, self.roles):
            record.clear()

    def add(
        self,
        polygon: NDArray[np.float64],
        centre: tuple[float, float],
        angle: float,
        *,
        role: Role = Role.MAIN,
        across: float = float("nan"),
        gap_px: int = 0,
        max_clip: float = 0.12,
    ) -> bool:
        """Draws a nucleus where it is free, and says whether it was drawn; see :meth:`fit`.

        Args:
            polygon, centre, gap_px, max_clip: see :meth:`fit`.
            angle, across, role: recorded.

        Raises:
            RequestError: the map holds 65,535 nuclei already.
        """
        found = self.fit(polygon, centre, gap_px=gap_px, max_clip=max_clip)
        if found is None:
            return False
        if self.count >= MAX_NUCLEI:
            raise RequestError(
                f"the layout holds more than {MAX_NUCLEI} nuclei",
                note="instance maps are 16-bit",
                hint="ask for a smaller picture, larger nuclei, or a count",
            )
        self.centres.append((float(centre[0]), float(centre[1])))
        self.angles.append(angle)
        self.across.append(across)
        self.roles.append(role)
        at, piece = found
        self.labels[at][piece] = self.count
        return True

    def fit(
        self, polygon: NDArray[np.float64], centre: tuple[float, float], *, gap_px: int = 0, max_clip: float = 0.12
    ) -> tuple[tuple[slice, slice], NDArray[np.bool_]] | None:
        """The pixels that a nucleus would get, as a mask of a window of the map; None where it finds no room.

        A nucleus that overlaps others a little gives way: it loses the shared pixels, as where an annotator
        draws one line between two touching nuclei. It is refused when it would lose more than ``max_clip`` of
        its area, when too little of it is visible, or when less than :data:`MIN_INSIDE` of that lies in the region.
        What it gets is one piece (4-connected).

        Args:
            polygon: [v, 2] float64 (x, y) around the origin; pixel centres have whole coordinates.
            centre: (x, y) to draw it at.
            gap_px: background pixels kept free around it.
        """
        vertices = polygon + centre
        height, width = self.labels.shape
        x0, y0 = (int(v) for v in np.floor(vertices.min(axis=0)) - 1)
        x1, y1 = (int(v) for v in np.ceil(vertices.max(axis=0)) + 2)
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return None
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        fixed = np.rint((vertices - (x0, y0)) * (1 << SHIFT)).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 1, lineType=cv2.LINE_8, shift=SHIFT)
        full = int(np.count_nonzero(mask))
        piece = self._free_piece(mask, (y0, x0), gap_px)
        left = int(np.count_nonzero(piece))
        if left < MIN_VISIBLE_PX or left < (1 - max_clip) * full:
            return None
        at = (slice(y0, y1), slice(x0, x1))
        if self.region is not None and np.count_nonzero(piece & self.region[at]) < MIN_INSIDE * left:
            return None
        return at, piece.view(bool)

    def _free_piece(self, mask: NDArray[np.uint8], corner: tuple[int, int], gap_px: int) -> NDArray[np.uint8]:
        """The largest connected part of ``mask`` that no other nucleus (or its gap) holds."""
        (h, w), (y, x) = mask.shape, corner
        taken = (self.labels[y : y + h, x : x + w] != 0).view(np.uint8)
        if self.foreign is not None:
            taken = taken | self.foreign[y : y + h, x : x + w]
        if gap_px and taken.any():
            taken = cv2.dilate(taken, np.ones((2 * gap_px + 1, 2 * gap_px + 1), np.uint8))
        free = mask & (taken ^ 1)
        pieces, labels = cv2.connectedComponents(free, connectivity=4)
        if pieces <= 2:
            return free
        sizes = np.bincount(labels.ravel())
        return (labels == 1 + int(np.argmax(sizes[1:]))).view(np.uint8)

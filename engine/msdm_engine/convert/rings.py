"""The exact outline of a nucleus: rings along the edges of its pixels.

A contour through pixel centres loses half a pixel and every nucleus of one pixel. These rings have their corners at
the corners of pixels, so the area inside is the nucleus, pixel by pixel, and two touching nuclei share an edge.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

Ring = list[tuple[int, int]]

# Headings on the screen, y downwards; +1 turns right, -1 turns left.
_EAST, _SOUTH, _WEST, _NORTH = range(4)


def polygons_of(nucleus: NDArray[np.bool_], x: int = 0, y: int = 0) -> list[list[Ring]]:
    """Polygons whose union is the nucleus, valid by the OGC simple features standard.

    Each piece that is connected through pixel edges is a polygon; pieces that meet at a corner are two, as a ring
    must not touch itself.

    Args:
        nucleus: [h, w] bool, with at least one pixel.
        x, y: where its first pixel lies in the picture.

    Returns:
        for each piece its outer ring, then its holes; a ring is a list of corners (x, y) in px without the closing
        one. Outer rings have a positive area in x and y, holes a negative one (RFC 7946, section 3.1.6).
    """
    count, pieces = cv2.connectedComponents(nucleus.astype(np.uint8), connectivity=4)
    return [list(_rings(pieces == piece, x, y)) for piece in range(1, count)]


def _rings(piece: NDArray[np.bool_], x: int, y: int) -> Iterator[Ring]:
    """The rings of one piece that is connected through edges, the outer one first.

    Each edge of the piece is walked once, the piece on the right. Where two of its pixels meet at a corner only, the
    walk turns left, from one to the other. As both are connected elsewhere, that ring then cannot come back to this
    corner: no ring touches itself.
    """
    height, width = piece.shape
    around = np.pad(piece, 1)
    edges = np.zeros((height + 1, width + 1), np.uint8)  # at each corner, a bit for each heading that leaves it
    edges[:-1, :-1] |= (piece & ~around[:-2, 1:-1]).astype(np.uint8) << _EAST
    edges[:-1, 1:] |= (piece & ~around[1:-1, 2:]).astype(np.uint8) << _SOUTH
    edges[1:, 1:] |= (piece & ~around[2:, 1:-1]).astype(np.uint8) << _WEST
    edges[1:, :-1] |= (piece & ~around[1:-1, :-2]).astype(np.uint8) << _NORTH
    steps = (1, width + 1, -1, -width - 1)
    left = bytearray(edges.tobytes())
    # In raster order the first edge of all lies on the outer ring, and the first of each ring begins at a turn.
    for start in np.flatnonzero(edges & (1 << _EAST)).tolist():
        if left[start] >> _EAST & 1:
            yield [(x + at % (width + 1), y + at // (width + 1)) for at in _walk(left, start, steps)]


def _walk(left: bytearray, start: int, steps: tuple[int, ...]) -> list[int]:
    """Corners of the ring that begins eastwards at ``start``; takes its edges out of ``left``."""
    corners, at, heading = [start], start, _EAST
    while True:
        left[at] &= ~(1 << heading)
        at += steps[heading]
        if at == start:
            return corners
        leaving = left[at]
        turn = next(turn for turn in (-1, 0, 1) if leaving >> (heading + turn) % 4 & 1)
        if turn:
            corners.append(at)
            heading = (heading + turn) % 4

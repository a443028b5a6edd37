"""Outlines of an instance map as short texts, exact to the pixel.

A browser cannot read the labels of a 16-bit PNG from ``file://`` (a canvas has 8 bits and is locked there),
so the outlines travel in the page. They follow the edges between pixels (crack code), nucleus on the right
hand, and are written as turns: about a third of a character for each pixel edge, a fifth of an SVG path.

Grammar, read by ``outlines.js``: a pair is ``nucleus;nucleus;...`` in the order of the labels; a nucleus
``loop,loop,...`` (pieces and holes); a loop ``x.yTURNS``: it starts at the corner (x, y) with one step to the
east, and each turn is followed by a step. A character of :data:`TRIPLES` is three turns, one of
:data:`SINGLES` one. Pieces that meet only at a corner are separate loops (4-connected).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEFT, STRAIGHT, RIGHT = 0, 1, 2
TRIPLES = "ABCDEFGHIJKLMNOPQRSTUVWXYZa"  # 9 first + 3 second + third turn
SINGLES = "lsr"

#: East, south, west, north: step (y, x), then the pixels (y, x) on the right and on the left of a step that
#: begins at the corner (0, 0). Corner (y, x) is the upper left one of pixel (y, x).
_STEP = ((0, 1), (1, 0), (0, -1), (-1, 0))
_RIGHT_PIXEL = ((0, 0), (0, -1), (-1, -1), (-1, 0))
_LEFT_PIXEL = ((-1, 0), (0, 0), (0, -1), (-1, -1))

_TRIPLE_BYTES = np.frombuffer(TRIPLES.encode(), np.uint8)
_SINGLE_BYTES = np.frombuffer(SINGLES.encode(), np.uint8)


def outline_text(instances: NDArray[np.integer]) -> str:
    """Outlines of all nuclei of an [H, W] instance map with the labels 1..n, 0 background.

    Returns:
        n texts joined by ``;`` (see the grammar above), empty for an empty map; ASCII, without ``<``, quotes
        and backslashes.
    """
    corner, label, turn, following = _edges(instances)
    width = instances.shape[1] + 3  # corners of the padded map in a row
    next_of = following.tolist()
    seen = bytearray(len(next_of))
    nuclei: list[list[str]] = [[] for _ in range(int(instances.max(initial=0)))]
    # East edges come first, row by row: each loop starts at its uppermost, then leftmost edge.
    for start in range(len(next_of)):
        if seen[start]:
            continue
        loop, edge = [], start
        while not seen[edge]:
            seen[edge] = 1
            loop.append(edge)
            edge = next_of[edge]
        y, x = divmod(int(corner[start]), width)
        # The turn of the last edge leads back onto the first one, which the reader takes for granted.
        nuclei[label[start] - 1].append(f"{x - 1}.{y - 1}{_turns_text(turn[loop[:-1]])}")
    return ";".join(",".join(loops) for loops in nuclei)


def _edges(instances: NDArray[np.integer]) -> tuple[NDArray[np.int64], ...]:
    """All directed pixel edges with a nucleus on their right and another label on their left.

    Returns:
        for each edge: its first corner as an index into the padded map's corners, the label, the turn at its
        end, and the edge that follows there.
    """
    labels = np.pad(instances.astype(np.int64), 1)
    width = labels.shape[1] + 1
    corners = (labels.shape[0] + 1) * width
    position = np.full(4 * corners, -1, np.int64)
    found = []
    for heading in range(4):
        y, x = np.nonzero(_is_edge(labels, heading))
        found.append((y, x, np.full(len(y), heading), labels[_ahead(_RIGHT_PIXEL, heading, y, x)]))
    y, x, headings, label = (np.concatenate(part) for part in zip(*found, strict=True))
    position[headings * corners + y * width + x] = np.arange(len(y))
    # At the end of an edge: right where the pixel ahead on the right is another label, straight where the
    # one on the left is, else left. Right first keeps diagonal neighbours apart.
    step = np.array(_STEP)
    y_end, x_end = y + step[headings, 0], x + step[headings, 1]
    right = labels[_ahead(_RIGHT_PIXEL, headings, y_end, x_end)] != label
    straight = labels[_ahead(_LEFT_PIXEL, headings, y_end, x_end)] != label
    turn = np.where(right, RIGHT, np.where(straight, STRAIGHT, LEFT))
    following = position[(headings + turn - 1) % 4 * corners + y_end * width + x_end]
    return y * width + x, label, turn, following


def _ahead(
    table: tuple[tuple[int, int], ...], heading: NDArray[np.int64] | int, y: NDArray[np.int64], x: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    offset = np.array(table)[heading]
    return y + offset[..., 0], x + offset[..., 1]


def _is_edge(labels: NDArray[np.int64], heading: int) -> NDArray[np.bool_]:
    """[H + 1, W + 1] bool over the corners of the padded map: does an edge begin here in this heading?"""
    height, width = labels.shape
    out = np.zeros((height + 1, width + 1), bool)
    # Inner corners only: the padding holds no nucleus, so no edge begins on the rim.
    inner = np.s_[1:height, 1:width]

    def beside(offset: tuple[int, int]) -> NDArray[np.int64]:
        dy, dx = offset
        return labels[1 + dy : height + dy, 1 + dx : width + dx]

    right, left = beside(_RIGHT_PIXEL[heading]), beside(_LEFT_PIXEL[heading])
    out[inner] = (right != 0) & (right != left)
    return out


def _turns_text(turns: NDArray[np.int64]) -> str:
    whole = len(turns) // 3 * 3
    triples = turns[:whole].reshape(-1, 3) @ (9, 3, 1)
    return (_TRIPLE_BYTES[triples].tobytes() + _SINGLE_BYTES[turns[whole:]].tobytes()).decode("ascii")

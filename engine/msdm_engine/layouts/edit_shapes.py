"""Edits of the shape of every nucleus. Maps come and go as [H, W] uint16, labels 1..n without gaps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.layouts.statistics import nuclei_of

Labels = NDArray[np.uint16]


@dataclass(frozen=True)
class Window:
    """Rows and columns around one nucleus, clipped to the map."""

    label: int
    y: slice
    x: slice


def windows(labels: Labels, margin_px: int) -> Iterator[Window]:
    """The window of each nucleus and ``margin_px`` around it, in the order of the labels."""
    height, width = labels.shape
    ys, xs = np.nonzero(labels)
    of = labels[ys, xs]
    n = int(of.max()) if len(of) else 0
    lows, highs = [], []
    for at, side in ((ys, height), (xs, width)):
        low, high = np.full(n + 1, side), np.zeros(n + 1, int)
        np.minimum.at(low, of, at)
        np.maximum.at(high, of, at + 1)
        lows.append(np.maximum(low - margin_px, 0).tolist())
        highs.append(np.minimum(high + margin_px, side).tolist())
    for label in np.unique(of).tolist():
        yield Window(label, slice(lows[0][label], highs[0][label]), slice(lows[1][label], highs[1][label]))


def grown(labels: Labels, px: float) -> Labels:
    """See :class:`msdm_engine.layouts.edit.Grow`. Of two nuclei at the same distance, the lower label takes a pixel."""
    nearest = np.full(labels.shape, np.inf, np.float32)
    owner = labels.copy()
    background = labels == 0
    for window in windows(labels, math.ceil(px)):
        at = (window.y, window.x)
        distance = _distance_to(labels[at] == window.label)
        closer = background[at] & (distance <= px) & (distance < nearest[at])
        owner[at][closer] = window.label
        nearest[at][closer] = distance[closer]
    # A piece that another nucleus cuts off from its own is background again.
    result = labels.copy()
    for window in windows(owner, 0):
        at = (window.y, window.x)
        own = owner[at] == window.label
        _, pieces = cv2.connectedComponents(own.view(np.uint8), connectivity=4)
        result[at][own & np.isin(pieces, np.unique(pieces[labels[at] == window.label]))] = window.label
    return result


def shrunk(labels: Labels, px: float, *, vanish: bool) -> Labels:
    """See :class:`msdm_engine.layouts.edit.Shrink`."""
    result = np.zeros_like(labels)
    for window in windows(labels, math.ceil(px)):
        at = (window.y, window.x)
        own = labels[at] == window.label
        depth = _depth(own)
        kept = largest_piece(depth > px)
        if not kept.any() and not vanish:
            kept.flat[np.argmax(depth)] = True
        result[at][kept] = window.label
    return result


def elongated(labels: Labels, factor: float) -> Labels:
    """See :class:`msdm_engine.layouts.edit.Elongate`."""
    nuclei = nuclei_of(labels)
    owner, deepest = np.zeros_like(labels), np.zeros(labels.shape, np.float32)
    stretch = math.sqrt(factor)
    for window in windows(labels, 0):
        k = window.label - 1
        centre, angle = nuclei.centroid[k], nuclei.angle[k]
        at, depth = _stretched(labels, window, centre, angle, stretch)
        # What a nucleus had and still wants is its own; no other depth reaches this.
        depth[(labels[at] == window.label) & (depth > 0)] = np.inf
        takes = depth > deepest[at]
        owner[at][takes] = window.label
        deepest[at][takes] = depth[takes]
    return _whole(owner, labels)


def _stretched(
    labels: Labels, window: Window, centre: NDArray[np.float64], angle: float, stretch: float
) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """Where the stretched nucleus may lie, and how deep each pixel there lies in its shape before, 0 outside of it."""
    height, width = labels.shape
    pad = (slice(max(window.y.start - 2, 0), window.y.stop + 2), slice(max(window.x.start - 2, 0), window.x.stop + 2))
    own = labels[pad] == window.label
    # Positive inside, zero half-way between the outermost pixels and the next ones: sampled between pixels, it keeps
    # outlines smooth.
    signed = np.where(own, np.minimum(_depth(own), 1e6) - 0.5, 0.5 - _distance_to(own)).astype(np.float32)
    reach = stretch * math.hypot(window.y.stop - window.y.start, window.x.stop - window.x.start)
    y = slice(max(0, math.floor(centre[1] - reach)), min(height, math.ceil(centre[1] + reach) + 1))
    x = slice(max(0, math.floor(centre[0] - reach)), min(width, math.ceil(centre[0] + reach) + 1))
    dy = np.arange(y.start, y.stop)[:, None] - centre[1]
    dx = np.arange(x.start, x.stop)[None, :] - centre[0]
    cos, sin = math.cos(angle), math.sin(angle)
    along, across = (dx * cos + dy * sin) / stretch, (dy * cos - dx * sin) * stretch
    # Beyond the map's border a nucleus goes on as it was at the border.
    from_x = np.clip(centre[0] + along * cos - across * sin, 0, width - 1) - pad[1].start
    from_y = np.clip(centre[1] + along * sin + across * cos, 0, height - 1) - pad[0].start
    depth = cv2.remap(
        signed,
        from_x.astype(np.float32),
        from_y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=-1.0,
    )
    return (y, x), np.maximum(depth, 0)


def _whole(owner: Labels, before: Labels) -> Labels:
    """Each nucleus in one piece; one of which nothing is left gets its innermost pixel back, whoever took it."""
    result = np.zeros_like(owner)
    for window in windows(owner, 0):
        at = (window.y, window.x)
        result[at][largest_piece(owner[at] == window.label)] = window.label
    innermost = {}
    for window in windows(before, 1):
        at = (window.y, window.x)
        row, column = divmod(int(np.argmax(_depth(before[at] == window.label))), window.x.stop - window.x.start)
        innermost[window.label] = (window.y.start + row, window.x.start + column)
    # These pixels were different nuclei's before, so that no return takes back another.
    while lost := set(innermost) - set(np.unique(result).tolist()):
        for label in lost:
            result[innermost[label]] = label
    return result


def largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 8-connected piece of a mask; the first in reading order of equal ones."""
    pieces, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    if pieces <= 2:
        return mask
    sizes = np.bincount(labels.ravel())
    return labels == 1 + int(np.argmax(sizes[1:]))


def _distance_to(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Euclidean distance of each pixel's centre to the nearest one in the mask."""
    return np.asarray(cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _depth(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Euclidean distance of each pixel's centre to the nearest one outside the mask; 0 outside, inf without outside."""
    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)

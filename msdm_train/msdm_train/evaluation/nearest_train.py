"""The nearest train crop of a picture, over all regions of train, flips, quarter turns and shifts.

Pictures are compared by one minus their normalised cross-correlation: 0 for a copy, also one whose brightness or
contrast was changed; about 1 for pictures that have nothing to do with each other; at most 2. Channels are centred
apart and correlated together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from msdm_engine.errors import InputError
from msdm_train.data.pack import Pack

SYMMETRIES = 8
#: Side that pictures are shrunk to for the first search, in pixels; shifts are multiples of the factor there.
COARSE_PX = 16
#: Best places of the first search, in different regions or symmetries, that the second one looks at.
CANDIDATES = 4
CHUNK = 64


@dataclass(frozen=True, eq=False)
class TrainRegion:
    """A region of a train field: [h, w, 3] uint8 picture."""

    field: str
    image: np.ndarray


@dataclass(frozen=True)
class Match:
    """The nearest train crop of a picture.

    Args:
        distance: one minus the normalised cross-correlation, in [0, 2].
        region: number of the region.
        y, x: upper left corner of the crop in the region.
        symmetry: of the picture that lies on the crop, see :func:`symmetric`.
    """

    distance: float
    region: int
    y: int
    x: int
    symmetry: int


def train_regions(pack: Pack, side_px: int) -> list[TrainRegion]:
    """All regions of the split train that hold a window.

    Raises:
        InputError: there is none.
    """
    found = [
        TrainRegion(field.id, pack.window(field.id, r.y0, r.x0, r.y1, r.x1)[0])
        for field in pack.split("train")
        for r in field.regions
        if min(r.y1 - r.y0, r.x1 - r.x0) >= side_px
    ]
    if not found:
        raise InputError(f"no region of train holds a window of {side_px} px", hint="ask for smaller ones with --size")
    return found


def symmetric(image: np.ndarray, symmetry: int) -> np.ndarray:
    """One of the eight symmetries of the square: ``symmetry % 4`` quarter turns, then mirrored from 4 on."""
    turned = np.rot90(image, symmetry % 4)
    return np.ascontiguousarray(turned[:, ::-1] if symmetry >= 4 else turned)


def undone(image: np.ndarray, symmetry: int) -> np.ndarray:
    """The inverse of :func:`symmetric`."""
    flipped = image[:, ::-1] if symmetry >= 4 else image
    return np.ascontiguousarray(np.rot90(flipped, -(symmetry % 4)))


def correlation_distance(a: np.ndarray, b: np.ndarray) -> float:
    """One minus the normalised cross-correlation of two [S, S, 3] uint8 pictures, without any shift."""
    return 1 - float(_correlations(a, b)[0, 0])


def _correlations(around: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Normalised cross-correlation at every shift; 0 for a flat picture, which OpenCV takes for equal to anything."""
    found = cv2.matchTemplate(around, picture, cv2.TM_CCOEFF_NORMED)
    return found if picture.std((0, 1)).max() > 0 else np.zeros_like(found)


def nearest_train(images: Sequence[np.ndarray], regions: Sequence[TrainRegion]) -> list[Match]:
    """The nearest train crop of each picture.

    The first search compares pictures shrunk to about 16 px with all windows of the shrunk regions; the second one
    shifts pixel by pixel around its best places at full size.

    Args:
        images: [S, S, 3] uint8, S at least 16 and the same for all.
    """
    if not images:
        return []
    side = images[0].shape[0]
    factor = max(1, side // COARSE_PX)
    small = [_windows(_shrunk(region.image, factor), side // factor) for region in regions]
    matches: list[Match] = []
    for first in range(0, len(images), CHUNK):
        part = images[first : first + CHUNK]
        turned = [[symmetric(image, s) for s in range(SYMMETRIES)] for image in part]
        flat = _unit(np.stack([_shrunk(t, factor).ravel() for of in turned for t in of]))
        score, place = _coarse(flat, small)
        matches += [_refined(of, regions, factor, *found) for of, *found in zip(turned, score, place, strict=True)]
    return matches


def _coarse(flat: np.ndarray, small: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Best correlation [n, regions, 8] of each picture in each region and symmetry, and the window's number."""
    score, place = [], []
    for units in small:
        found = (units @ flat.T).reshape(len(units), -1, SYMMETRIES)
        place.append(found.argmax(0))
        score.append(found.max(0))
    return np.stack(score, 1), np.stack(place, 1)


def _refined(
    turned: Sequence[np.ndarray], regions: Sequence[TrainRegion], factor: int, score: np.ndarray, place: np.ndarray
) -> Match:
    """Looks at the best places at full size. ``score`` and ``place``: [regions, 8]."""
    best: Match | None = None
    side = turned[0].shape[0]
    for flat in np.argsort(-score, axis=None)[:CANDIDATES].tolist():
        number, symmetry = divmod(flat, SYMMETRIES)
        image = regions[number].image
        columns = image.shape[1] // factor - side // factor + 1
        row, column = divmod(int(place[number, symmetry]), columns)
        y, x = max(0, (row - 1) * factor), max(0, (column - 1) * factor)
        around = image[y : (row + 1) * factor + side, x : (column + 1) * factor + side]
        if min(around.shape[:2]) < side:  # the region's last pixels, which its shrunk picture has lost
            y, x = min(y, image.shape[0] - side), min(x, image.shape[1] - side)
            around = image[y:, x:]
        found = _correlations(around, turned[symmetry])
        dy, dx = np.unravel_index(int(found.argmax()), found.shape)
        match = Match(1 - float(found.max()), number, y + int(dy), x + int(dx), symmetry)
        if best is None or match.distance < best.distance:
            best = match
    assert best is not None
    return best


def _shrunk(image: np.ndarray, factor: int) -> np.ndarray:
    """[H // factor, W // factor, 3] float32 means."""
    height, width = (side // factor for side in image.shape[:2])
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return blocks.mean((1, 3), dtype=np.float32)


def _windows(small: np.ndarray, side: int) -> np.ndarray:
    """[windows, side * side * 3] centred and normalised windows of a shrunk region, in reading order."""
    view = np.lib.stride_tricks.sliding_window_view(small, (side, side), (0, 1))
    return _unit(view.transpose(0, 1, 3, 4, 2).reshape(-1, side * side * 3))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of pixels with the mean of each channel taken off, at length one; a flat picture becomes zero."""
    pixels = rows.reshape(len(rows), -1, 3)
    centred = (pixels - pixels.mean(1, keepdims=True)).reshape(len(rows), -1)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-3)

"""Run-length encoding of COCO, written anew from its definition.

Source: the format that ``maskApi.c`` of the COCO API (Lin et al., *Microsoft COCO: Common objects in context*,
ECCV 2014) reads and writes. A mask is read column by column; its runs alternate between 0 and 1, beginning with 0
(of length zero where the first pixel is 1). In the compressed text each run from the fourth on is stored as the
difference to the run two before it, in groups of five bits from the lowest, each group a character.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Groups of five bits that the longest difference takes: 4096 x 4096 pixels are 25 bits and a sign.
_GROUPS = 6


def runs_of(instances: NDArray[np.uint16]) -> dict[int, NDArray[np.int64]]:
    """Runs of the mask of each nucleus, in one pass over the picture.

    Args:
        instances: [H, W] uint16, 0 is background.

    Returns:
        for each label in ascending order, the lengths of the runs: [k] int64, whose sum is H * W.
    """
    pixels = instances.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(pixels)) + 1])
    ends = np.append(starts[1:], pixels.size)
    of = pixels[starts]
    order = np.argsort(of, kind="stable")
    order = order[np.searchsorted(of[order], 1) :]  # without the background's runs
    labels, first = np.unique(of[order], return_index=True)
    runs = {}
    for label, own in zip(labels, np.split(order, first[1:]), strict=False):
        borders = np.stack([starts[own], ends[own]], 1).ravel()
        lengths = np.diff(borders, prepend=0)
        rest = pixels.size - borders[-1]
        runs[int(label)] = np.append(lengths, rest) if rest else lengths
    return runs


def compressed(runs: NDArray[np.int64]) -> str:
    """The text of one mask's runs, which ``pycocotools.mask.decode`` reads.

    Args:
        runs: [k] int64, lengths of at most 2^25 px.
    """
    values = runs.astype(np.int64)
    values[3:] -= runs[1:-2]
    # Arithmetic shifts keep the sign; a number ends with the first group whose highest bit is the sign of the rest.
    shifted = values[:, None] >> (5 * np.arange(_GROUPS))
    groups, rest = shifted & 31, shifted >> 5
    ends = rest == np.where(groups & 16, -1, 0)
    last = ends.argmax(1)[:, None]
    at = np.arange(_GROUPS)[None]
    characters = np.where(at < last, groups | 32, groups) + 48
    return characters[at <= last].astype(np.uint8).tobytes().decode("ascii")

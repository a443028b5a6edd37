"""PanNuke: ``images.npy``, ``masks.npy`` and ``types.npy``, with ``info.json`` beside them.

Gamper et al., *PanNuke dataset extension, insights and baselines*, arXiv 2003.10778. Row i is pair i. The sixth
channel of a mask is the background (1 there, 0 in nuclei), the others hold the labels of one class each.
"""

from __future__ import annotations

import numpy as np

from msdm_engine.convert.format import Conversion, Format
from msdm_engine.convert.npy import npy_rows, one_size, write_info

CLASSES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
BACKGROUND = len(CLASSES)


def write_pannuke(conversion: Conversion) -> None:
    """Writes images [N, H, W, 3] uint8, masks [N, H, W, 6] int32 and types [N], the indication of each pair.

    PanNuke's own masks are float64; int32 holds every label, has a sign as they have, and takes half the place.
    """
    pairs, folder = conversion.pairs, conversion.folder
    height, width = one_size(pairs, "pannuke")
    channel = CLASSES.index(conversion.nucleus_class)
    write_info(conversion, channels=[*CLASSES, "background"], types="indication of each pair, may be empty")
    longest = max(1, *(len(pair.metadata["indication"]) for pair in pairs))
    with (
        npy_rows(folder / "images.npy", np.uint8, (len(pairs), height, width, 3)) as add_image,
        npy_rows(folder / "masks.npy", np.int32, (len(pairs), height, width, BACKGROUND + 1)) as add_mask,
        npy_rows(folder / "types.npy", f"<U{longest}", (len(pairs),)) as add_type,
    ):
        for pair in conversion.each():
            instances = pair.instances()
            mask = np.zeros((height, width, BACKGROUND + 1), np.int32)
            mask[..., channel] = instances
            mask[..., BACKGROUND] = instances == 0
            add_image(pair.image())
            add_mask(mask)
            add_type(np.array(pair.metadata["indication"]))


PANNUKE = Format(write_pannuke, "numpy.load(..., mmap_mode='r'), any PanNuke reader", CLASSES)

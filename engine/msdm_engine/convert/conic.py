"""CoNIC: ``images.npy`` and ``labels.npy``, with ``info.json`` beside them.

Graham et al., *CoNIC challenge: pushing the frontiers of nuclear detection, segmentation, classification and
counting*, Medical Image Analysis 92 (2024). Row i is pair i; the first channel of a label is the instance map, the
second the class of each pixel, 1 to 6, and 0 for background.
"""

from __future__ import annotations

import numpy as np

from msdm_engine.convert.format import Conversion, Format
from msdm_engine.convert.npy import npy_rows, one_size, write_info

CLASSES = ("neutrophil", "epithelial", "lymphocyte", "plasma", "eosinophil", "connective")


def write_conic(conversion: Conversion) -> None:
    """Writes images [N, H, W, 3] uint8 and labels [N, H, W, 2] uint16, the types that CoNIC has."""
    pairs, folder = conversion.pairs, conversion.folder
    height, width = one_size(pairs, "conic")
    number = 1 + CLASSES.index(conversion.nucleus_class)
    write_info(conversion, channels=["instance", "class"], classes=["background", *CLASSES])
    with (
        npy_rows(folder / "images.npy", np.uint8, (len(pairs), height, width, 3)) as add_image,
        npy_rows(folder / "labels.npy", np.uint16, (len(pairs), height, width, 2)) as add_label,
    ):
        for pair in conversion.each():
            instances = pair.instances()
            add_image(pair.image())
            add_label(np.stack([instances, np.where(instances, np.uint16(number), np.uint16(0))], -1))


CONIC = Format(write_conic, "numpy.load(..., mmap_mode='r'), any CoNIC reader", CLASSES)

"""HoVer-Net: ``Images/`` and ``Labels/`` as in CoNSeP, one ``.mat`` for each picture, and ``type_info.json``.

Graham et al., *HoVer-Net*, Medical Image Analysis 58 (2019); the variables are those of its CoNSeP set and of its
code: ``inst_map``, ``type_map``, ``inst_type``, ``inst_centroid``, ``inst_uid``. There is one class, number 1. The
notice stands at the start of each ``.mat`` and, with bundle and licence, in variables of their own.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdm_engine.convert.format import Conversion, Format
from msdm_engine.convert.mat5 import mat5_bytes
from msdm_engine.convert.regions import regions_of

TYPE_INFO_FILE = "type_info.json"


def write_hovernet(conversion: Conversion) -> None:
    """Writes ``Images/000000.png`` and ``Labels/000000.mat`` for each pair."""
    images, labels = conversion.folder / "Images", conversion.folder / "Labels"
    images.mkdir()
    labels.mkdir()
    # As HoVer-Net's code reads it: number -> name and colour.
    types = {"0": ["background", [0, 0, 0]], "1": [conversion.nucleus_class, [255, 0, 0]]}
    (conversion.folder / TYPE_INFO_FILE).write_text(json.dumps(types) + "\n")
    provenance = conversion.provenance.to_json()
    head = f"MATLAB 5.0 MAT-file, {conversion.provenance.notice}"
    for pair in conversion.each():
        (images / f"{pair.name}.png").write_bytes(pair.image_png())
        (labels / f"{pair.name}.mat").write_bytes(mat5_bytes(head, {**variables_of(pair.instances()), **provenance}))


def variables_of(instances: NDArray[np.uint16]) -> dict[str, NDArray[Any]]:
    """The variables of one picture.

    Args:
        instances: [H, W] uint16, 0 is background.

    Returns:
        ``inst_map`` and ``type_map`` [H, W] int32; ``inst_uid`` and ``inst_type`` [n, 1] int32, label and class (1)
        of each nucleus; ``inst_centroid`` [n, 2] float64, x and y.
    """
    regions = regions_of(instances)
    uid = regions.labels.astype(np.int32)[:, None]
    return {
        "inst_map": instances.astype(np.int32),
        "type_map": (instances > 0).astype(np.int32),
        "inst_uid": uid,
        "inst_type": np.ones_like(uid),
        "inst_centroid": regions.centroid,
    }


HOVERNET = Format(write_hovernet, "scipy.io.loadmat, HoVer-Net's CoNSeP reader")

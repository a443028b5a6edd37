"""Hugging Face image folder: ``images/``, ``masks/``, ``metadata.jsonl``, and ``README.md``, the data set's card.

``datasets`` makes the columns ``image`` and ``mask`` of ``file_name`` and ``mask_file_name``, and a column of each
other key. Keys are flat and of one type in all rows, as its tables need it: the seed, which goes up to 2^64 - 1, is a
text. Licence and notice stand in the card.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from msdm_engine.convert.format import Conversion, Format
from msdm_engine.convert.source import Provenance, SetPair

METADATA_FILE, CARD_FILE = "metadata.jsonl", "README.md"

#: Licences that the Hub knows by name; SPDX writes them in capitals.
HUB_LICENCES = frozenset(
    [
        *("cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-3.0"),
        *("cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "odbl", "pddl", "apache-2.0", "mit"),
    ]
)


def write_imagefolder(conversion: Conversion) -> None:
    """Writes the folder; pictures are copied byte for byte."""
    folder = conversion.folder
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    with (folder / METADATA_FILE).open("x", encoding="ascii") as file:
        for pair in conversion.each():
            row = row_of(pair, conversion.nucleus_class)
            (folder / row["file_name"]).write_bytes(pair.image_png())
            (folder / row["mask_file_name"]).write_bytes(pair.mask_png())
            file.write(json.dumps(row) + "\n")
    (folder / CARD_FILE).write_text(_card(conversion.provenance), encoding="utf-8")


def row_of(pair: SetPair, nucleus_class: str) -> dict[str, Any]:
    """One line of ``metadata.jsonl``: the two files, and the pair's conditions."""
    record, (height, width) = pair.record, pair.size_px
    colours = {
        f"{region}_{key}": (record["colour"].get(region) or {}).get(key)
        for region in ("foreground", "background")
        for key in ("mean", "std")
    }
    return {
        "file_name": f"images/{pair.name}.png",
        "mask_file_name": f"masks/{pair.name}.png",
        "index": pair.index,
        "seed": str(record["seed"]),
        "height_px": height,
        "width_px": width,
        "nucleus_class": nucleus_class,
        "morphology": record["morphology"],
        **pair.metadata,
        **{key: None if value is None else [float(number) for number in value] for key, value in colours.items()},
    }


def _card(provenance: Provenance) -> str:
    licence = provenance.data_licence.lower()
    known = {"license": licence} if licence in HUB_LICENCES else {"license": "other", "license_name": licence}
    front = {**known, "task_categories": ["image-segmentation"], "tags": ["synthetic", "pathology", "nuclei", "msdm"]}
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# Generated pairs of image and mask\n\n"
        f"{provenance.notice[0].upper()}{provenance.notice[1:]}.\n\n"
        "The licence is that of the data that the generator was trained on.\n\n"
        f"```json\n{json.dumps(provenance.to_json(), indent=1)}\n```\n"
    )


IMAGEFOLDER = Format(write_imagefolder, "datasets.load_dataset('imagefolder', data_dir=OUT, split='train')")

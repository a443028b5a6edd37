"""COCO: ``annotations.json`` with one RLE annotation for each nucleus, and ``images/``.

The licence stands in ``licenses`` and at each image, the notice and the bundle in ``info``. ``iscrowd`` is 0: each
annotation is one nucleus, stored as RLE because a polygon would not keep its pixels. ``instance`` is its label.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from msdm_engine.convert.format import Conversion, Format
from msdm_engine.convert.regions import regions_of
from msdm_engine.convert.rle import compressed, runs_of
from msdm_engine.convert.source import SetPair

ANNOTATIONS_FILE = "annotations.json"
_CATEGORY, _LICENCE = 1, 1


def write_coco(conversion: Conversion) -> None:
    """Writes the folder; annotations are streamed, one picture's at a time."""
    images = conversion.folder / "images"
    images.mkdir()
    provenance = conversion.provenance
    info = {"description": provenance.notice, "version": "1.0", **provenance.to_json()}
    licences = [{"id": _LICENCE, "name": provenance.data_licence, "url": ""}]
    categories = [{"id": _CATEGORY, "name": conversion.nucleus_class, "supercategory": "nucleus"}]
    with (conversion.folder / ANNOTATIONS_FILE).open("x", encoding="ascii") as file:
        file.write(f'{{"info": {json.dumps(info)},\n"licenses": {json.dumps(licences)},\n')
        file.write(f'"categories": {json.dumps(categories)},\n"images": [\n')
        file.write(",\n".join(json.dumps(_image(pair)) for pair in conversion.pairs))
        file.write('\n],\n"annotations": [')
        number = 0
        for pair in conversion.each():
            (images / f"{pair.name}.png").write_bytes(pair.image_png())
            for annotation in _annotations(pair):
                file.write(",\n" if number else "\n")
                number += 1  # from 1: the COCO evaluation takes 0 for "no match"
                file.write(json.dumps({"id": number, **annotation}))
        file.write("\n]}\n")


def _image(pair: SetPair) -> dict[str, Any]:
    height, width = pair.size_px
    file_name = f"images/{pair.name}.png"
    return {"id": pair.index, "file_name": file_name, "height": height, "width": width, "license": _LICENCE}


def _annotations(pair: SetPair) -> Iterator[dict[str, Any]]:
    instances = pair.instances()
    runs, regions = runs_of(instances), regions_of(instances)
    for label, area, box in zip(regions.labels.tolist(), regions.area_px.tolist(), regions.box.tolist(), strict=True):
        yield {
            "image_id": pair.index,
            "category_id": _CATEGORY,
            "segmentation": {"size": list(pair.size_px), "counts": compressed(runs[label])},
            "area": area,
            "bbox": box,
            "iscrowd": 0,
            "instance": label,
        }


COCO = Format(write_coco, "pycocotools.coco.COCO('annotations.json')")

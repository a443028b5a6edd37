"""QuPath: a GeoJSON FeatureCollection for each picture, a detection for each nucleus, in pixel coordinates.

GeoJSON as in RFC 7946, with the properties that QuPath reads (``objectType``, ``classification``, ``name``). Where
the data come from stands in ``metadata``, a foreign member (RFC 7946, section 6.1), which readers pass over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from msdm_engine.convert.format import Conversion, Format
from msdm_engine.convert.regions import regions_of
from msdm_engine.convert.rings import Ring, polygons_of
from msdm_engine.convert.source import SetPair

#: Colour of the outlines in QuPath: rare in stained tissue.
OUTLINE_RGB = (0, 200, 0)


def write_qupath(conversion: Conversion) -> None:
    """Writes ``images/000000.png`` and ``geojson/000000.geojson`` for each pair."""
    images, collections = conversion.folder / "images", conversion.folder / "geojson"
    images.mkdir()
    collections.mkdir()
    classification = {"name": conversion.nucleus_class, "color": OUTLINE_RGB}
    for pair in conversion.each():
        (images / f"{pair.name}.png").write_bytes(pair.image_png())
        collection = {
            "type": "FeatureCollection",
            "metadata": {**conversion.provenance.to_json(), "image": f"{pair.name}.png"},
            "features": list(_features(pair, classification)),
        }
        (collections / f"{pair.name}.geojson").write_text(json.dumps(collection, separators=(",", ":")) + "\n")


def _features(pair: SetPair, classification: dict[str, Any]) -> Iterator[dict[str, Any]]:
    instances = pair.instances()
    regions = regions_of(instances)
    for label, (x, y, width, height) in zip(regions.labels.tolist(), regions.box.tolist(), strict=True):
        polygons = polygons_of(instances[y : y + height, x : x + width] == label, x, y)
        yield {
            "type": "Feature",
            "geometry": _geometry([[_closed(ring) for ring in polygon] for polygon in polygons]),
            "properties": {"objectType": "detection", "name": str(label), "classification": classification},
        }


def _closed(ring: Ring) -> Ring:
    return [*ring, ring[0]]


def _geometry(polygons: list[list[Ring]]) -> dict[str, Any]:
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


QUPATH = Format(write_qupath, "QuPath (open an image, drop its .geojson on it), shapely, geopandas")

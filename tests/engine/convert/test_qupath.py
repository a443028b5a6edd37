from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine.convert.job import convert_set
from msdm_engine.inputs.masks import read_rgb
from msdm_engine.output.records import NOTICE


@pytest.fixture(scope="module")
def written(one_size_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("qupath") / "out"
    convert_set(one_size_set, "qupath", out, nucleus_class="epithelial nucleus")
    return out


def collections(written: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((written / "geojson").iterdir())]


def test_polygons_rasterised_by_pixel_centres_are_the_masks(written: Path, masks: list[np.ndarray]) -> None:
    shapely = pytest.importorskip("shapely", reason="shapely, which reads GeoJSON, is not installed")
    found = collections(written)
    assert len(found) == len(masks)
    for collection, mask in zip(found, masks, strict=True):
        ys, xs = np.indices(mask.shape)
        back = np.zeros_like(mask)
        for feature in collection["features"]:
            geometry = shapely.geometry.shape(feature["geometry"])
            assert geometry.is_valid
            inside = shapely.contains_xy(geometry, xs + 0.5, ys + 0.5)
            assert not back[inside].any()
            back[inside] = int(feature["properties"]["name"])
        assert (back == mask).all()


def test_pictures_are_kept(written: Path, pictures: list[np.ndarray]) -> None:
    for i, picture in enumerate(pictures):
        assert (read_rgb(written / "images" / f"{i:06d}.png") == picture).all()


def test_features_are_detections_with_closed_rings(written: Path) -> None:
    kinds = set()
    for collection in collections(written):
        for feature in collection["features"]:
            assert feature["type"] == "Feature"
            assert feature["properties"]["objectType"] == "detection"
            assert feature["properties"]["classification"] == {"name": "epithelial nucleus", "color": [0, 200, 0]}
            kind, coordinates = feature["geometry"]["type"], feature["geometry"]["coordinates"]
            kinds.add(kind)
            for polygon in [coordinates] if kind == "Polygon" else coordinates:
                for ring in polygon:
                    assert ring[0] == ring[-1]
                    assert len(ring) >= 5
    assert kinds == {"Polygon", "MultiPolygon"}


def test_notice_bundle_and_licence_stand_beside_the_features(written: Path) -> None:
    for i, collection in enumerate(collections(written)):
        assert collection["type"] == "FeatureCollection"
        assert collection["metadata"]["notice"] == NOTICE
        assert collection["metadata"]["bundle_sha256"] == "ab" * 32
        assert collection["metadata"]["data_licence"] == "CC0-1.0"
        assert collection["metadata"]["image"] == f"{i:06d}.png"

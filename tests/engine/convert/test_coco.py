from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine.convert.job import convert_set
from msdm_engine.inputs.masks import read_rgb
from msdm_engine.output.records import NOTICE

# pycocotools 2.0.11 hands its arrays to NumPy 2 without the `copy` keyword; harmless, and not ours to change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def written(one_size_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("coco") / "out"
    convert_set(one_size_set, "coco", out)
    return out


@pytest.fixture(scope="module")
def coco(written: Path) -> Any:
    owner = pytest.importorskip("pycocotools.coco", reason="pycocotools, which owns the format, is not installed")
    return owner.COCO(str(written / "annotations.json"))


def test_masks_and_pictures_come_back_pixel_for_pixel(
    coco: Any, written: Path, masks: list[np.ndarray], pictures: list[np.ndarray]
) -> None:
    assert coco.getImgIds() == list(range(len(masks)))
    for image in coco.loadImgs(coco.getImgIds()):
        back = np.zeros((image["height"], image["width"]), np.uint16)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            pixels = coco.annToMask(annotation) > 0
            assert not back[pixels].any()
            back[pixels] = annotation["instance"]
        assert (back == masks[image["id"]]).all()
        picture = read_rgb(written / image["file_name"])
        assert (picture == pictures[image["id"]]).all()


def test_area_and_box_are_those_of_the_library(coco: Any) -> None:
    mask = pytest.importorskip("pycocotools.mask")
    annotations = coco.loadAnns(coco.getAnnIds())
    for annotation in annotations:
        assert annotation["area"] == mask.area(annotation["segmentation"])
        assert annotation["bbox"] == mask.toBbox(annotation["segmentation"]).tolist()
    assert [annotation["id"] for annotation in annotations] == list(range(1, len(annotations) + 1))


def test_the_set_scored_against_itself_is_perfect(coco: Any) -> None:
    evaluation = pytest.importorskip("pycocotools.cocoeval").COCOeval
    results = [
        {key: annotation[key] for key in ("image_id", "category_id", "segmentation")} | {"score": 1.0}
        for annotation in coco.loadAnns(coco.getAnnIds())
    ]
    scored = evaluation(coco, coco.loadRes(results), "segm")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    assert scored.stats[0] == 1.0


def test_notice_bundle_and_licence_stand_where_coco_has_them(written: Path) -> None:
    content = json.loads((written / "annotations.json").read_text())
    assert content["info"]["description"] == content["info"]["notice"] == NOTICE
    assert content["info"]["bundle_sha256"] == "ab" * 32
    assert content["licenses"] == [{"id": 1, "name": "CC0-1.0", "url": ""}]
    assert {image["license"] for image in content["images"]} == {1}
    assert [category["name"] for category in content["categories"]] == ["nucleus"]
    assert {annotation["iscrowd"] for annotation in content["annotations"]} == {0}

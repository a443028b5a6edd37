from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from msdm_engine.conditions.decode import instances_from_maps
from msdm_engine.errors import InputError
from msdm_engine.inputs.masks import read_instances
from msdm_engine.metrics.segmentation import dice
from msdm_engine.output.png import png_bytes
from msdm_train.data.pack import Pack
from msdm_train.segmentation.predict import Segmenter, load_segmenter_module, predict_folder
from msdm_train.segmentation.scoring import score_fields

#: float32 of another batch size.
FLOAT32 = 1e-4


@pytest.fixture(scope="module")
def segmenter(trained: Path) -> Segmenter:
    return Segmenter.load(trained)


def test_finds_the_nuclei_of_a_field_it_has_not_seen(segmenter: Segmenter, opened_pack: Pack) -> None:
    image, instances = opened_pack.window("v", 0, 0, 64, 64)
    found = segmenter([image])[0]
    assert found.dtype == np.uint16 and found.shape == (64, 64)
    # Squares that are darker by 60 to 90 of 255 in noise of 80: an easy task, of which 40 steps learn the most.
    assert dice(instances, found).value > 0.8


def test_any_sizes_in_their_order(segmenter: Segmenter, opened_pack: Pack) -> None:
    image = opened_pack.window("v", 0, 0, 64, 64)[0]
    pictures = [image[:33, :50], image, image[:1, :1], image[10:43, 10:60]]
    maps = segmenter.maps(pictures)
    assert [one.shape for one in maps] == [(3, 33, 50), (3, 64, 64), (3, 1, 1), (3, 33, 50)]
    for picture, found in zip(pictures, maps, strict=True):
        np.testing.assert_allclose(found, segmenter.maps([picture])[0], atol=FLOAT32)
        assert np.abs(found).max() <= 1
    assert segmenter([]) == []


@torch.no_grad()
def test_the_module_gives_maps_in_range_that_decode_to_the_same(trained: Path, opened_pack: Pack) -> None:
    module, identity = load_segmenter_module(trained)
    image = opened_pack.window("v", 0, 0, 64, 64)[0]
    maps = module(torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(127.5) - 1))
    assert maps.shape == (1, 3, 64, 64) and maps.abs().max() <= 1
    np.testing.assert_array_equal(instances_from_maps(maps[0].numpy()), Segmenter.load(trained)([image])[0])
    assert identity["architecture"] == "plain" and "t1" in identity["source"] and len(identity["sha256"]) == 64


def test_the_foreground_is_two_p_minus_one(trained: Path) -> None:
    module, _ = load_segmenter_module(trained)
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        logit = module.network(image)[:, 0]
        torch.testing.assert_close(module(image)[:, 0], 2 * torch.sigmoid(logit) - 1)


def test_predicts_a_folder(segmenter: Segmenter, opened_pack: Pack, tmp_path: Path) -> None:
    image = opened_pack.window("v", 0, 0, 64, 64)[0]
    (tmp_path / "in").mkdir()
    for name, picture in (("a", image), ("b", image[:40, :48])):
        (tmp_path / "in" / f"{name}.png").write_bytes(png_bytes(picture))
    report = predict_folder(segmenter, tmp_path / "in", tmp_path / "out")
    masks = [read_instances(tmp_path / "out" / f"{name}.png") for name in "ab"]
    np.testing.assert_array_equal(masks[0], segmenter([image])[0])
    assert masks[1].shape == (40, 48)
    assert report == {"pictures": 2, "nuclei": int(masks[0].max()) + int(masks[1].max())}


def test_refuses_folders_without_pictures_and_twins(segmenter: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no pictures"):
        predict_folder(segmenter, tmp_path, tmp_path / "out")
    for name in ("a.png", "a.tif"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="two pictures of one name"):
        predict_folder(segmenter, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_refuses_what_is_no_picture(segmenter: Segmenter, image: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"legal: \[H, W, 3\] uint8"):
        segmenter([image])


def test_scores_held_out_fields_only(segmenter: Segmenter, opened_pack: Pack) -> None:
    report = score_fields(segmenter, opened_pack, ["t2", "v"])
    assert report["pictures"] == 2 and set(report["by_field"]) == {"t2", "v"}
    for score in ("dice", "aji", "pq"):
        values = [report["by_field"][name][score] for name in ("t2", "v")]
        assert report["mean"][score] == pytest.approx(np.mean(values))
        assert min(values) - 1e-9 <= report["pooled"][score] <= max(values) + 1e-9
    with pytest.raises(InputError, match="t1 was learnt from"):
        score_fields(segmenter, opened_pack, ["t1"])
    with pytest.raises(InputError, match="field x is not in the data"):
        score_fields(segmenter, opened_pack, ["x"])
    with pytest.raises(InputError, match="no field is to be scored"):
        score_fields(segmenter, opened_pack, [])

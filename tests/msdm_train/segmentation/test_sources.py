from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msdm_engine.errors import InputError, RequestError
from msdm_engine.output.png import png_bytes
from msdm_train.data.pack import Pack
from msdm_train.evaluation.samples import Sample
from msdm_train.segmentation.batches import Batches
from msdm_train.segmentation.config import SegmenterConfig
from msdm_train.segmentation.sources import Folder, Mixture, PackFields, Samples


def sample(value: int, side_px: int = 40) -> Sample:
    image = np.full((side_px, side_px, 3), value, np.uint8)
    return Sample(image, np.zeros((side_px, side_px), np.uint16), "f", "g", 0)


def write_set(folder: Path, count: int = 2) -> Path:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        (folder / "images" / f"{i:06d}.png").write_bytes(png_bytes(sample(10 + i).image))
        (folder / "masks" / f"{i:06d}.png").write_bytes(png_bytes(sample(0).instances))
    return folder


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_windows_of_a_pack_come_from_the_named_fields(opened_pack: Pack) -> None:
    source = PackFields(opened_pack, ["t2"])
    image, instances = source.window(rng(), 32)
    assert image.shape == (32, 32, 3) and instances.shape == (32, 32)
    whole = opened_pack.window("t2", 0, 0, 64, 64)[0]
    places = [(y, x) for y in range(33) for x in range(33)]
    assert any(np.array_equal(image, whole[y : y + 32, x : x + 32]) for y, x in places)
    assert source.identity == {"pack": "drawn", "licence": "CC0-1.0", "fields": ["t2"]}
    assert PackFields(opened_pack, split="train").identity["fields"] == ["t1", "t2"]


def test_folder_and_samples(tmp_path: Path) -> None:
    folder = Folder(write_set(tmp_path / "set"))
    assert folder.smallest_px == 40 and (folder.identity["folder"], folder.identity["pictures"]) == ("set", 2)
    assert {int(folder.window(np.random.default_rng(i), 32)[0][0, 0, 0]) for i in range(20)} == {10, 11}
    image, instances = Samples([sample(3)], "made").window(rng(), 99)
    assert image.shape == (40, 40, 3) and instances.shape == (40, 40)  # no larger than the picture


def test_other_pixels_are_another_source(tmp_path: Path) -> None:
    assert Samples([sample(1)], "a").identity != Samples([sample(2)], "a").identity
    before = Folder(write_set(tmp_path / "set")).identity
    (tmp_path / "set" / "images" / "000000.png").write_bytes(png_bytes(sample(99).image))
    assert Folder(tmp_path / "set").identity != before


def test_a_mixture_keeps_its_shares() -> None:
    source = Mixture([(Samples([sample(0)], "a"), 0.25), (Samples([sample(1)], "b"), 0.75)])
    generator = rng()
    ones = sum(int(source.window(generator, 32)[0][0, 0, 0]) for _ in range(2000))
    # Standard deviation of 2000 draws: sqrt(2000 * 0.25 * 0.75) = 19; five of them.
    assert abs(ones - 1500) < 97
    assert [part["share"] for part in source.identity["mixture"]] == [0.25, 0.75]


def test_batches_depend_on_seed_and_step_alone(opened_pack: Pack) -> None:
    config = SegmenterConfig(batch=3, crop_px=32)
    first, again = (Batches(PackFields(opened_pack), config) for _ in range(2))
    first(1)
    for a, b in zip(first(2), again(2), strict=True):
        assert a.equal(b) and a.shape == (3, 3, 32, 32)
    assert not first(2)[0].equal(first(3)[0])
    other = Batches(PackFields(opened_pack), SegmenterConfig(batch=3, crop_px=32, seed=1))
    assert not first(2)[0].equal(other(2)[0])


def test_without_augmentation_pixels_stay_as_they_are(opened_pack: Pack) -> None:
    one = opened_pack.window("t1", 0, 0, 64, 64)
    source = Samples([Sample(*one, "t1", "g", 0)], "one")
    image, target = Batches(source, SegmenterConfig(batch=1, crop_px=64, augmentation="none"))(1)
    np.testing.assert_array_equal(np.rint((image[0].numpy() + 1) * 127.5).transpose(1, 2, 0), one[0])
    np.testing.assert_array_equal(target[0, 0].numpy() > 0, one[1] > 0)


def test_augmentation_moves_picture_and_mask_alike(opened_pack: Pack) -> None:
    # Nuclei of this pack are darker by 90 of 255 in green, 0.7 in these units; turned apart from their mask they would
    # be as dark as background on average, and the stain changes a difference by a quarter.
    image, target = Batches(PackFields(opened_pack), SegmenterConfig(batch=16, crop_px=32))(1)
    for picture, maps in zip(image.numpy(), target.numpy(), strict=True):
        inside = maps[0] > 0
        assert picture[1][inside].mean() < picture[1][~inside].mean() - 0.2


def test_refuses_crops_larger_than_the_pictures() -> None:
    with pytest.raises(InputError, match="crops of 64 px from pictures of 40 px"):
        Batches(Samples([sample(0)], "small"), SegmenterConfig(crop_px=64))


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.0, 0.0), (1.5, -0.5)])
def test_refuses_shares_that_are_none(shares: tuple[float, float]) -> None:
    parts = [(Samples([sample(0)], "a"), share) for share in shares]
    with pytest.raises(RequestError, match="each above 0, and 1 in all"):
        Mixture(parts)


def test_refuses_unknown_fields_and_empty_choices(opened_pack: Pack) -> None:
    with pytest.raises(InputError, match="no field nowhere"):
        PackFields(opened_pack, ["nowhere"])
    with pytest.raises(InputError, match="no field of drawn is chosen"):
        PackFields(opened_pack, [])
    with pytest.raises(InputError, match="holds no picture"):
        Samples([], "nothing")


def test_refuses_folders_without_pairs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no pictures"):
        Folder(tmp_path)
    folder = write_set(tmp_path / "set")
    (folder / "masks" / "000001.png").unlink()
    with pytest.raises(InputError, match="has no mask"):
        Folder(folder)
    (folder / "masks" / "000001.png").write_bytes(png_bytes(sample(0, 48).instances))
    changed = Folder(folder)
    with pytest.raises(InputError, match="equal sizes"):
        [changed.window(np.random.default_rng(i), 32) for i in range(20)]

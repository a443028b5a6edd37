from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import msdm_engine.convert.webdataset as under_test
from msdm_engine.convert.job import convert_set
from msdm_engine.output.pair_set import NOTICE


@pytest.fixture(scope="module")
def owner() -> Any:
    return pytest.importorskip("webdataset", reason="webdataset, which owns the format, is not installed")


def labels(data: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))


def test_the_recipe_of_the_docs_gives_masks_and_pictures_pixel_for_pixel(
    owner: Any, one_size_set: Path, tmp_path: Path, masks: list[np.ndarray], pictures: list[np.ndarray]
) -> None:
    convert_set(one_size_set, "webdataset", tmp_path / "out")
    shards = [str(path) for path in sorted((tmp_path / "out").iterdir())]
    # The library's own decoders make 8 bits of every picture, so the mask needs a decoder before them.
    data = owner.WebDataset(shards, shardshuffle=False).decode(owner.handle_extension("mask.png", labels), "rgb8")
    samples = list(data)
    assert [sample["__key__"] for sample in samples] == [f"{i:06d}" for i in range(len(masks))]
    for sample, mask, picture in zip(samples, masks, pictures, strict=True):
        assert sample["mask.png"].dtype == np.uint16
        assert (sample["mask.png"] == mask).all()
        assert (sample["image.png"] == picture).all()


def test_conditions_notice_bundle_and_licence_stand_in_the_json(owner: Any, one_size_set: Path, tmp_path: Path) -> None:
    convert_set(one_size_set, "webdataset", tmp_path / "out")
    sample = next(iter(owner.WebDataset(str(tmp_path / "out" / "000000.tar"), shardshuffle=False).decode()))
    record = sample["json"]
    assert record["provenance"]["notice"] == NOTICE
    assert record["provenance"]["bundle_sha256"] == "ab" * 32
    assert record["provenance"]["data_licence"] == "CC0-1.0"
    assert record["morphology"] == "layout round"
    assert record["metadata"]["indication"] == "Kolonkarzinom, groß"
    assert record["colour"]["foreground"]["mean"] == [100.0, 50.5, 190.0]
    assert record["seed"] == 2**64 - 1
    assert record["nucleus_class"] == "nucleus"


def test_equal_sets_give_equal_bytes_without_time_or_owner(one_size_set: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        convert_set(one_size_set, "webdataset", tmp_path / name)
    assert (tmp_path / "a" / "000000.tar").read_bytes() == (tmp_path / "b" / "000000.tar").read_bytes()
    with tarfile.open(tmp_path / "a" / "000000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == 0o644


@pytest.mark.parametrize(("pairs", "size"), [(3, 2**40), (1000, 1)])
def test_a_set_is_cut_into_shards_by_pairs_or_bytes(
    one_size_set: Path, tmp_path: Path, masks: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, pairs: int, size: int
) -> None:
    monkeypatch.setattr(under_test, "SHARD_PAIRS", pairs)
    monkeypatch.setattr(under_test, "SHARD_BYTES", size)
    convert_set(one_size_set, "webdataset", tmp_path / "out")
    shards = sorted((tmp_path / "out").iterdir())
    per_shard = pairs if size > 1 else 1
    assert [shard.name for shard in shards] == [f"{i:06d}.tar" for i in range(-(-len(masks) // per_shard))]
    names = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            names.append(tar.getnames())
    assert [len(found) // 3 for found in names[:-1]] == [per_shard] * (len(shards) - 1)
    keys = [name.split(".")[0] for found in names for name in found]
    assert keys == [f"{i // 3:06d}" for i in range(3 * len(masks))]

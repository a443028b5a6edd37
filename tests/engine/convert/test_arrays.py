"""PanNuke and CoNIC: NumPy owns the files, their papers the layout."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from msdm_engine.convert.job import convert_set
from msdm_engine.errors import InputError, RequestError
from msdm_engine.output.pair_set import NOTICE


def test_pannuke_holds_each_label_in_its_class_and_the_background_last(
    one_size_set: Path, tmp_path: Path, masks: list[np.ndarray], pictures: list[np.ndarray]
) -> None:
    convert_set(one_size_set, "pannuke", tmp_path / "out", nucleus_class="epithelial")
    images = np.load(tmp_path / "out" / "images.npy", mmap_mode="r")
    found = np.load(tmp_path / "out" / "masks.npy", mmap_mode="r")
    assert images.dtype == np.uint8
    assert (images == np.stack(pictures)).all()
    assert found.shape == (len(masks), *masks[0].shape, 6)
    assert (found[..., 4] == np.stack(masks)).all()
    assert (found[..., :4] == 0).all()
    assert (found[..., 5] == (np.stack(masks) == 0)).all()


def test_pannuke_types_are_the_indications(one_size_set: Path, tmp_path: Path, masks: list[np.ndarray]) -> None:
    convert_set(one_size_set, "pannuke", tmp_path / "out", nucleus_class="epithelial")
    types = np.load(tmp_path / "out" / "types.npy")
    assert types.tolist() == ["Kolonkarzinom, groß", *[""] * (len(masks) - 1)]


def test_conic_holds_instance_and_class(
    one_size_set: Path, tmp_path: Path, masks: list[np.ndarray], pictures: list[np.ndarray]
) -> None:
    convert_set(one_size_set, "conic", tmp_path / "out", nucleus_class="connective")
    labels = np.load(tmp_path / "out" / "labels.npy")
    assert labels.dtype == np.uint16
    assert (labels[..., 0] == np.stack(masks)).all()
    assert (labels[..., 1] == 6 * (np.stack(masks) > 0)).all()
    assert (np.load(tmp_path / "out" / "images.npy") == np.stack(pictures)).all()


@pytest.mark.parametrize(("name", "example"), [("pannuke", "neoplastic"), ("conic", "neutrophil")])
def test_a_format_with_classes_needs_one_and_records_it(
    one_size_set: Path, tmp_path: Path, name: str, example: str
) -> None:
    with pytest.raises(RequestError, match=f"--class NAME, one of .*{example}"):
        convert_set(one_size_set, name, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    convert_set(one_size_set, name, tmp_path / "out", nucleus_class=example)
    info = json.loads((tmp_path / "out" / "info.json").read_text())
    assert info["nucleus_class"] == example
    assert (info["notice"], info["bundle_sha256"], info["data_licence"]) == (NOTICE, "ab" * 32, "CC0-1.0")


@pytest.mark.parametrize("name", ["pannuke", "conic"])
def test_pairs_of_several_sizes_are_refused_with_their_sizes(
    write_set: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    folder = write_set(tmp_path / "set", [np.zeros(shape, np.uint16) for shape in ((32, 40), (32, 40), (48, 32))])
    with pytest.raises(InputError, match=r"2 sizes: 32 x 40 px \(2 pairs\), 48 x 32 px \(1 pairs\)"):
        convert_set(folder, name, tmp_path / "out", nucleus_class="connective")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_class_that_the_format_does_not_have_is_refused_with_the_nearest(one_size_set: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="did you mean 'epithelial'"):
        convert_set(one_size_set, "pannuke", tmp_path / "out", nucleus_class="epithelium")


def test_memory_does_not_grow_with_the_set(write_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", [np.ones((128, 128), np.uint16)] * 24)
    tracemalloc.start()
    try:
        convert_set(folder, "pannuke", tmp_path / "out", nucleus_class="epithelial")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    whole = (tmp_path / "out" / "masks.npy").stat().st_size
    assert whole > 24 * 128 * 128 * 6 * 4
    # a row is a 24th of the file; a few copies of it are alive at once, and the picture with its PNG
    assert peak < whole / 4

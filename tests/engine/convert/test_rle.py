from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from msdm_engine.convert.rle import compressed, runs_of


@pytest.fixture(scope="module")
def owner() -> Any:
    return pytest.importorskip("pycocotools.mask", reason="pycocotools, which owns the encoding, is not installed")


def text_of(owner: Any, mask: np.ndarray) -> str:
    """What the library itself writes for one binary mask."""
    text: str = owner.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    return text


def test_runs_go_down_the_columns_and_begin_with_background() -> None:
    mask = np.array([[0, 1, 1], [0, 1, 0]], np.uint16)
    assert {label: runs.tolist() for label, runs in runs_of(mask).items()} == {1: [2, 3, 1]}


def test_a_nucleus_at_the_first_pixel_begins_with_an_empty_run() -> None:
    assert runs_of(np.ones((2, 2), np.uint16))[1].tolist() == [0, 4]


def test_text_of_small_runs_is_one_character_each_from_48_on() -> None:
    # 0 -> chr(48); 15 is the largest number of five bits whose highest bit is not set
    assert compressed(np.array([0, 15])) == "0?"
    # 16 = 0b10000 needs a second group: 16 | 32, then 0
    assert compressed(np.array([16])) == chr(48 + 48) + "0"
    # from the fourth run on, the difference to the run two before: 2 - 3 = -1 = 0b11111
    assert compressed(np.array([5, 3, 4, 2])) == "534" + chr(31 + 48)


def test_text_is_the_one_that_the_library_writes(owner: Any, masks: list[np.ndarray]) -> None:
    for mask in masks:
        runs = runs_of(mask)
        assert list(runs) == [label for label in np.unique(mask) if label]
        for label, own in runs.items():
            assert compressed(own) == text_of(owner, mask == label)


def test_noise_of_many_sizes_is_written_as_the_library_writes_it(owner: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 40, 2)
        mask = (rng.random((height, width)) < rng.random()).astype(np.uint16)
        for own in runs_of(mask).values():
            assert compressed(own) == text_of(owner, mask)


def test_the_largest_picture_has_the_longest_runs_and_differences(owner: Any) -> None:
    mask = np.zeros((4096, 4096), np.uint16)
    mask[0, 0] = mask[0, 1] = 1  # runs 0, 1, 4095, 1, 16773119: the last difference is the largest there is
    mask[:, 2000:4000] = 2
    for label, own in runs_of(mask).items():
        assert own.sum() == mask.size
        assert compressed(own) == text_of(owner, mask == label)
    # the longest run of all, 2^24, is the only number of 26 bits
    full = np.ones((4096, 4096), np.uint16)
    assert compressed(runs_of(full)[1]) == text_of(owner, full)
    # a difference of almost -2^24, which no mask above has
    runs = np.array([0, 2**24 - 4, 1, 2, 1])
    pixels = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8).reshape(4096, 4096, order="F")
    assert compressed(runs) == text_of(owner, pixels)

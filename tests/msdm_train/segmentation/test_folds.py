from __future__ import annotations

import pytest

from msdm_engine.errors import RequestError
from msdm_train.data.pack import FieldInfo
from msdm_train.data.reader import Region
from msdm_train.segmentation.folds import Fold, folds, split_by_fold


def field(name: str, *stains: str) -> FieldInfo:
    regions = tuple(Region(0, 10 * i, 10, 10 * i + 10, {"stain": stain}) for i, stain in enumerate(stains))
    return FieldInfo(name, "train", 10, 10 * len(stains), 1, regions)


FIELDS = [field(f"w{i}", "white") for i in range(4)] + [field(f"l{i}", "lilac", "lilac") for i in range(4)]


def test_each_fold_has_its_part_of_each_tag() -> None:
    for fold in folds(FIELDS, 4):
        assert sorted(name[0] for name in fold) == ["l", "w"]
    for fold in folds(FIELDS, 2):
        assert sorted(name[0] for name in fold) == ["l", "l", "w", "w"]


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_folds_are_a_partition_of_equal_sizes_whatever_the_order(n: int) -> None:
    found = folds(FIELDS, n)
    assert sorted(name for fold in found for name in fold) == sorted(f.id for f in FIELDS)
    sizes = [len(fold) for fold in found]
    assert max(sizes) - min(sizes) <= 1
    assert folds(FIELDS[::-1], n) == found


def test_the_fold_is_held_out() -> None:
    kept, held = split_by_fold(FIELDS, Fold.parse("1/4"))
    assert held == folds(FIELDS, 4)[1] and not set(kept) & set(held) and len(kept) + len(held) == len(FIELDS)


def test_fields_without_tags_are_dealt_out() -> None:
    plain = [FieldInfo(str(i), "train", 8, 8, 0, (Region(0, 0, 8, 8, {}),)) for i in range(4)]
    assert folds(plain, 2) == [("0", "2"), ("1", "3")]


@pytest.mark.parametrize("text", ["4/4", "0/1", "1", "a/b", "-1/4", "1/4/2"])
def test_refuses_a_fold_that_is_none(text: str) -> None:
    with pytest.raises(RequestError, match="INDEX/OF"):
        Fold.parse(text)


def test_refuses_more_folds_than_fields() -> None:
    with pytest.raises(RequestError, match="9 folds of 8 fields"):
        folds(FIELDS, 9)

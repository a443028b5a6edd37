from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from msdm_engine.convert.job import convert_set
from msdm_engine.output.pair_set import NOTICE


@pytest.fixture(scope="module")
def rows(one_size_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    owner = pytest.importorskip("datasets", reason="datasets, which owns the format, is not installed")
    folder = tmp_path_factory.mktemp("imagefolder")
    convert_set(one_size_set, "imagefolder", folder / "out")
    return owner.load_dataset(
        "imagefolder", data_dir=str(folder / "out"), split="train", cache_dir=str(folder / "cache")
    )


def front_matter(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("\n---\n")[0])
    return found


def test_image_and_mask_are_columns_that_come_back_pixel_for_pixel(
    rows: Any, masks: list[np.ndarray], pictures: list[np.ndarray]
) -> None:
    assert len(rows) == len(masks)
    for row in rows:
        index = row["index"]
        assert (np.asarray(row["image"]) == pictures[index]).all()
        mask = np.asarray(row["mask"])
        assert mask.max() == masks[index].max()
        assert (mask == masks[index]).all()


def test_conditions_are_columns(rows: Any) -> None:
    first, second = rows[0], rows[1]
    assert (first["indication"], first["assay"]) == ("Kolonkarzinom, groß", "")
    assert (second["description"], second["morphology"]) == ("violet", "layout round")
    assert first["seed"] == str(2**64 - 1)
    assert first["foreground_mean"] == [100.0, 50.5, 190.0]
    assert second["foreground_mean"] is None
    assert (first["height_px"], first["width_px"]) == (64, 80)


def test_the_card_carries_licence_notice_and_bundle(one_size_set: Path, tmp_path: Path) -> None:
    convert_set(one_size_set, "imagefolder", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert front_matter(tmp_path / "out")["license"] == "cc0-1.0"
    assert NOTICE in card
    assert "ab" * 32 in card
    assert "synthetic" in front_matter(tmp_path / "out")["tags"]


def test_a_licence_with_markup_stays_a_text_of_the_card(write_set: Callable[..., Path], tmp_path: Path) -> None:
    licence = "own: [terms\n---\ntags: x"
    data = {"name": "drawn", "licence": licence, "source": "```\n# heading"}
    folder = write_set(tmp_path / "set", [np.zeros((16, 16), np.uint16)], data=data)
    convert_set(folder, "imagefolder", tmp_path / "out")
    found = front_matter(tmp_path / "out")
    assert (found["license"], found["license_name"]) == ("other", licence)
    assert "synthetic" in found["tags"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "\n# heading" not in card

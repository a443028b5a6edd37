from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msdm_engine.conditions.colour import Colour, RegionColour
from msdm_engine.errors import InputError
from msdm_engine.gallery.manifest import records
from msdm_engine.gallery.measure import (
    MAX_THUMBNAIL_PX,
    MIN_THUMBNAIL_PX,
    colour_difference,
    measure,
    thumbnail_px,
)
from msdm_engine.output.png import png_bytes


def flat(red: float, green: float, blue: float) -> RegionColour:
    return RegionColour((red, green, blue), (0.0, 0.0, 0.0))


def test_a_pair_is_measured(write_set: Any) -> None:
    folder = write_set(([6, 3], {}))
    (record,) = records(folder)
    found = measure(folder, record, 64)
    assert found.nuclei == 2
    assert found.area_px.tolist() == [36, 9]
    # Equal second moments along both axes of a square.
    assert found.aspect_ratio == pytest.approx([1, 1], abs=1e-9)
    assert found.outlines.startswith("1.1")
    # The image has exactly the colours that its line asks for.
    assert found.colour_difference == 0
    assert found.colour.foreground == flat(100, 50, 180)
    # Bins of 8: 100 is in bin 12, 50 in 6, 180 in 22, with all pixels of the region.
    assert found.colour_shares[0, [0, 1, 2], [12, 6, 22]].tolist() == [1, 1, 1]
    assert found.colour_shares.sum() == pytest.approx(6, abs=1e-12)


def test_nuclei_cut_by_the_border_are_counted_but_not_measured(write_set: Any) -> None:
    folder = write_set(([4], {}))
    labels = np.zeros((32, 32), np.uint16)
    labels[0:5, 0:5], labels[10:14, 10:12] = 1, 2
    (folder / "masks/000000.png").write_bytes(png_bytes(labels))
    (record,) = records(folder)
    found = measure(folder, record, 64)
    assert found.nuclei == 2
    assert found.area_px.tolist() == [8]
    # Twice as long as wide: (16 / 12) / (4 / 12) is the ratio of the second moments, its root that of the axes.
    assert found.aspect_ratio == pytest.approx([2], abs=1e-9)


@pytest.mark.parametrize(("side", "expected"), [(16, (16, 16)), (64, (32, 32))])
def test_a_thumbnail_is_shrunk_and_never_enlarged(write_set: Any, side: int, expected: tuple[int, int]) -> None:
    folder = write_set(([], {}))
    (record,) = records(folder)
    data = np.frombuffer(base64.b64decode(measure(folder, record, side).thumbnail), np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape[:2] == expected
    # All background, blue first; WebP at this quality keeps a flat colour to a few units.
    assert decoded.reshape(-1, 3).mean(axis=0) == pytest.approx([220, 190, 210], abs=4)


def test_the_budget_decides_the_thumbnails() -> None:
    assert thumbnail_px(1) == MAX_THUMBNAIL_PX
    # sqrt(24 MiB / (10,000 * 0.25)) = 100.3, down to a multiple of 16.
    assert thumbnail_px(10_000) == 96
    assert thumbnail_px(10**9) == MIN_THUMBNAIL_PX


def test_colour_difference() -> None:
    black, white = flat(0, 0, 0), flat(255, 255, 255)
    assert colour_difference(Colour(), Colour(black, white)) is None
    assert colour_difference(Colour(black), Colour(None, white)) is None
    # L* runs from 0 (black) to 100 (white), a* and b* are 0 for both; float32 arithmetic.
    assert colour_difference(Colour(white), Colour(black)) == pytest.approx(100, abs=0.01)
    assert colour_difference(Colour(black, black), Colour(black, white)) == pytest.approx(100, abs=0.01)


@pytest.mark.parametrize("name", ["images", "masks"])
def test_another_size_than_the_line_says(write_set: Any, name: str) -> None:
    folder = write_set(([4], {}))
    shape = (20, 24, 3) if name == "images" else (20, 24)
    array = np.zeros(shape, np.uint8)
    (folder / name / "000000.png").write_bytes(png_bytes(array))
    (record,) = records(folder)
    with pytest.raises(InputError, match=rf"{name}.000000\.png is 20 x 24 px") as caught:
        measure(folder, record, 64)
    assert "line 1" in (caught.value.note or "")


@pytest.mark.parametrize("name", ["images", "masks"])
def test_a_damaged_picture_is_named(write_set: Any, name: str) -> None:
    folder: Path = write_set(([4], {}))
    (folder / name / "000000.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (record,) = records(folder)
    with pytest.raises(InputError, match=r"000000\.png"):
        measure(folder, record, 64)

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from msdm_engine.errors import InputError
from msdm_engine.layouts.regions import cut_by_area, read_regions
from msdm_engine.layouts.registry import stream


@pytest.mark.parametrize("shares", [(1.0,), (0.6, 0.4), (0.05, 0.7, 0.25), (0.125,) * 8])
@pytest.mark.parametrize(("height_px", "width_px"), [(64, 64), (97, 211)])
def test_areas_are_those_asked_for_to_the_pixel(shares: tuple[float, ...], height_px: int, width_px: int) -> None:
    for seed in range(3):
        regions = cut_by_area(stream(seed, 0), height_px, width_px, shares)
        assert regions.shape == (height_px, width_px)
        counts = np.bincount(regions.ravel(), minlength=len(shares) + 1)
        assert counts[0] == 0
        # Rounding moves each end of a part by half a pixel at most.
        assert (np.abs(counts[1:] - np.array(shares) * regions.size) <= 1).all()


def test_borders_are_smooth_and_regions_few() -> None:
    for seed in range(8):
        regions = cut_by_area(stream(seed, 0), 256, 256, (0.5, 0.5))
        border = sum(np.count_nonzero(np.diff(regions.astype(int), axis=axis)) for axis in (0, 1))
        # A straight cut changes 256 pairs of pixels, a diagonal one 512; noise cut pixel by pixel changes 65,000.
        assert 200 < border < 1200
        pieces = sum(cv2.connectedComponents((regions == k).astype(np.uint8))[0] - 1 for k in (1, 2))
        assert pieces <= 6


def test_same_stream_same_regions() -> None:
    same = [cut_by_area(stream(seed, 0), 80, 90, (0.3, 0.7)).tobytes() for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_drawn_values_are_kept(tmp_path: Path, dtype: type) -> None:
    drawn: np.ndarray = np.zeros((64, 80), dtype)
    drawn[:, 40:] = 7
    drawn[32:, :] = 255
    cv2.imwrite(str(tmp_path / "drawn.png"), drawn)
    read = read_regions(tmp_path / "drawn.png")
    assert read.dtype == np.uint8
    assert np.array_equal(read, drawn)


def test_regions_that_cannot_be_used(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "large.png"), np.full((64, 64), 256, np.uint16))
    cv2.imwrite(str(tmp_path / "colour.png"), np.zeros((64, 64, 3), np.uint8))
    np.save(tmp_path / "array.npy", np.ones((64, 64), np.uint8))
    (tmp_path / "text.png").write_text("no picture")
    for name, match in (
        ("large.png", "large.png cannot be used"),
        ("array.npy", "array.npy cannot be used"),
        ("colour.png", "colour.png has colours"),
        ("text.png", "text.png cannot be read"),
        ("absent.png", "absent.png cannot be read"),
    ):
        with pytest.raises(InputError, match=match):
            read_regions(tmp_path / name)

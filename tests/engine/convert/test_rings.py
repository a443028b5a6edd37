from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from msdm_engine.convert.rings import Ring, polygons_of


@pytest.fixture(scope="module")
def shapely() -> Any:
    return pytest.importorskip("shapely", reason="shapely, which knows valid polygons, is not installed")


def array(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def area(ring: Ring) -> float:
    """Signed area (shoelace formula)."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True)) / 2


def rings_seen(*rows: str) -> list[list[float]]:
    return [[area(ring) for ring in polygon] for polygon in polygons_of(array(*rows))]


def test_one_pixel_is_a_square_of_its_four_corners() -> None:
    assert polygons_of(array("#"), x=3, y=5) == [[[(3, 5), (4, 5), (4, 6), (3, 6)]]]


def test_only_turns_are_corners() -> None:
    assert polygons_of(array("####", "####")) == [[[(0, 0), (4, 0), (4, 2), (0, 2)]]]


@pytest.mark.parametrize(
    ("rows", "areas"),
    [
        (("###", "#.#", "###"), [[9, -1]]),  # a hole
        (("#..", ".#.", "..#"), [[1], [1], [1]]),  # pieces that meet at corners
        (("###", "#.#", "##."), [[9 - 1, -1]]),  # a hole that meets the outside at a corner is a hole
        (("#####", "#.###", "##.##", "#####"), [[20, -1, -1]]),  # so are two holes that meet
        (("####", "#..#", "####"), [[12, -2]]),
    ],
)
def test_rings_are_what_the_pixels_form(rows: tuple[str, ...], areas: list[list[float]]) -> None:
    assert rings_seen(*rows) == areas


def test_outlines_of_every_mask_are_valid_and_hold_exactly_their_pixels(shapely: Any, masks: list[np.ndarray]) -> None:
    for mask in masks:
        for label in np.unique(mask[mask > 0]):
            check_exact(shapely, mask == label)


def test_outlines_of_noise_are_valid_and_hold_exactly_their_pixels(shapely: Any) -> None:
    rng = np.random.default_rng(4)
    for _ in range(150):
        height, width = rng.integers(1, 14, 2)
        nucleus = rng.random((height, width)) < rng.uniform(0.2, 0.95)
        if nucleus.any():
            check_exact(shapely, nucleus)


def check_exact(shapely: Any, nucleus: np.ndarray) -> None:
    polygons = polygons_of(nucleus)
    for outer, *holes in polygons:
        assert area(outer) > 0
        assert all(area(hole) < 0 for hole in holes)
    geometry = shapely.MultiPolygon([(outer, holes) for outer, *holes in polygons])
    assert geometry.is_valid, shapely.is_valid_reason(geometry)
    assert geometry.area == nucleus.sum()  # whole corners: exact in floating point
    ys, xs = np.indices(nucleus.shape)
    assert (shapely.contains_xy(geometry, xs + 0.5, ys + 0.5) == nucleus).all()

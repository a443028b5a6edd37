from __future__ import annotations

import numpy as np

from msdm_engine.layouts.sheet import BACKGROUND_RGB, GAP_PX, OUTLINE_RGB, MapSheet, colour_coded


def squares(number: int) -> np.ndarray:
    """Squares of 8 px, every 10 px."""
    labels = np.zeros((20, 10 * number), np.uint16)
    for k in range(number):
        labels[2:10, 10 * k + 1 : 10 * k + 9] = k + 1
    return labels


def test_each_nucleus_has_its_colour_and_a_line() -> None:
    picture = colour_coded(squares(12))
    inside = [tuple(picture[5, 10 * k + 5].tolist()) for k in range(12)]
    assert len(set(inside)) == 12
    assert tuple(picture[2, 5].tolist()) == OUTLINE_RGB
    assert tuple(picture[0, 0].tolist()) == tuple(picture[15, 5].tolist()) == BACKGROUND_RGB


def test_parts_of_a_mixture_have_hues_of_their_own() -> None:
    picture = colour_coded(squares(12), np.repeat([1, 2], 6)).astype(int)
    inside = np.array([picture[5, 10 * k + 5] for k in range(12)])
    # Part 1 is blue (hues of 180 to 238 degrees), part 2 yellow and green (42 to 100 degrees).
    assert (inside[:6, 2] > inside[:6, 0]).all()
    assert (inside[6:, 1] > inside[6:, 2]).all()


def test_an_empty_map_is_background() -> None:
    assert (colour_coded(np.zeros((5, 7), np.uint16)) == BACKGROUND_RGB).all()


def test_sheet_holds_rows_of_maps() -> None:
    sheet = MapSheet(limit=5, columns=2, thumbnail_px=40)
    for _ in range(7):
        sheet.add(squares(3))
    # Three rows of two maps of 20 x 30 px, of which the last has one.
    drawn = sheet.draw()
    assert drawn.shape == (3 * (20 + GAP_PX) + GAP_PX, 2 * (30 + GAP_PX) + GAP_PX, 3)
    assert (drawn[-20:, -30:] == 255).all()


def test_large_maps_are_reduced() -> None:
    sheet = MapSheet(thumbnail_px=30)
    sheet.add(squares(6))
    assert sheet.draw().shape == (10 + 2 * GAP_PX, 30 + 2 * GAP_PX, 3)

from __future__ import annotations

import numpy as np
import pytest

from msdm_engine.output.contact_sheet import BETWEEN_PAIRS_PX, GAP_PX, OUTLINE_RGB, ContactSheet, draw_outlines

GREY = np.full((12, 14, 3), 128, np.uint8)


def outlined(instances: np.ndarray) -> np.ndarray:
    """Where the outline's colour was drawn over a grey picture."""
    image = np.full((*instances.shape, 3), 128, np.uint8)
    drawn = draw_outlines(image, instances)
    at = (drawn == OUTLINE_RGB).all(-1)
    assert np.array_equal(drawn[~at], image[~at])
    return at


# --- outlines --------------------------------------------------------------------------------------------------


def test_the_outline_of_a_rectangle_is_its_border() -> None:
    instances = np.zeros((12, 14), np.uint16)
    instances[3:8, 4:11] = 1
    expected = instances > 0
    expected[4:7, 5:10] = False
    assert np.array_equal(outlined(instances), expected)


def test_the_outline_stays_inside_its_nucleus() -> None:
    rng = np.random.default_rng(0)
    instances = np.kron(rng.integers(0, 4, (6, 7)), np.ones((5, 5), int)).astype(np.uint16)
    at = outlined(instances)
    assert not (at & (instances == 0)).any()
    # A boundary pixel has a 4-neighbour of another label, an inner one has none.
    padded = np.pad(instances, 1, mode="edge")
    height, width = instances.shape
    around = [
        padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))
    ]
    boundary = np.any([neighbour != instances for neighbour in around], axis=0)
    assert np.array_equal(at, boundary & (instances > 0))


def test_touching_nuclei_are_separated() -> None:
    instances = np.zeros((12, 14), np.uint16)
    instances[2:10, 2:7], instances[2:10, 7:12] = 1, 2
    at = outlined(instances)
    assert at[2:10, 6].all() and at[2:10, 7].all()
    assert not at[3:9, 3:6].any() and not at[3:9, 8:11].any()


def test_the_frame_of_the_picture_is_no_outline() -> None:
    assert not outlined(np.ones((12, 14), np.uint16)).any()


def test_a_nucleus_of_one_pixel_is_all_outline_and_background_has_none() -> None:
    instances = np.zeros((12, 14), np.uint16)
    assert not outlined(instances).any()
    instances[5, 6] = 65535
    assert np.argwhere(outlined(instances)).tolist() == [[5, 6]]


def test_the_picture_is_not_changed() -> None:
    image, before = GREY.copy(), GREY.copy()
    draw_outlines(image, np.eye(12, 14).astype(np.uint16), colour=(1, 2, 3))
    assert np.array_equal(image, before)


# --- geometry of the sheet -------------------------------------------------------------------------------------


def sheet_of(count: int, limit: int = 16, columns: int = 4, side: int = 24) -> np.ndarray:
    """Pairs of one grey value each, 5, 10, 15...; every mask is one nucleus without visible boundary."""
    sheet = ContactSheet(limit, columns, side)
    for i in range(count):
        sheet.add(np.full((side, side, 3), 5 * (i + 1), np.uint8), np.ones((side, side), np.uint16))
    return sheet.draw()


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 1, 4), (5, 2, 4), (16, 4, 4), (40, 4, 4)]
)
def test_the_size_follows_from_the_number_of_pairs(count: int, rows: int, columns: int) -> None:
    height, width = 24, 2 * 24 + GAP_PX
    expected = (
        rows * (height + BETWEEN_PAIRS_PX) + BETWEEN_PAIRS_PX,
        columns * (width + BETWEEN_PAIRS_PX) + BETWEEN_PAIRS_PX,
        3,
    )
    sheet = sheet_of(count)
    assert sheet.shape == expected
    assert sheet.dtype == np.uint8


def test_pairs_stand_in_reading_order_picture_beside_outlines() -> None:
    sheet = sheet_of(6)
    step_y, step_x = 24 + BETWEEN_PAIRS_PX, 2 * 24 + GAP_PX + BETWEEN_PAIRS_PX
    for i in range(6):
        y, x = BETWEEN_PAIRS_PX + i // 4 * step_y, BETWEEN_PAIRS_PX + i % 4 * step_x
        assert (sheet[y : y + 24, x : x + 24] == 5 * (i + 1)).all()
        assert (sheet[y : y + 24, x + 24 + GAP_PX : x + 2 * 24 + GAP_PX] == 5 * (i + 1)).all()
        assert (sheet[y : y + 24, x + 24 : x + 24 + GAP_PX] == 255).all()
    assert (sheet[:BETWEEN_PAIRS_PX] == 255).all()
    assert (sheet[BETWEEN_PAIRS_PX + step_y :, BETWEEN_PAIRS_PX + 2 * step_x :] == 255).all()  # two places are empty


def test_a_picture_that_is_not_square_keeps_its_proportions() -> None:
    sheet = ContactSheet(thumbnail_px=24)
    sheet.add(np.zeros((6, 12, 3), np.uint8), np.zeros((6, 12), np.uint16))
    cell = sheet.draw()[BETWEEN_PAIRS_PX:-BETWEEN_PAIRS_PX, BETWEEN_PAIRS_PX:-BETWEEN_PAIRS_PX]
    assert (cell[:12, :24] == 0).all()
    assert (cell[12:, :24] == 255).all()


@pytest.mark.parametrize("shape", [(16, 4096), (4096, 16), (1000, 700), (17, 16)])
def test_every_legal_size_fits(shape: tuple[int, int]) -> None:
    sheet = ContactSheet(thumbnail_px=192)
    sheet.add(np.zeros((*shape, 3), np.uint8), np.ones(shape, np.uint16))
    assert sheet.draw().shape == (192 + 2 * BETWEEN_PAIRS_PX, 2 * 192 + GAP_PX + 2 * BETWEEN_PAIRS_PX, 3)


def test_outlines_of_an_enlarged_picture_are_one_pixel_wide() -> None:
    instances = np.zeros((16, 16), np.uint16)
    instances[4:12, 4:12] = 1
    sheet = ContactSheet(thumbnail_px=64)
    sheet.add(np.full((16, 16, 3), 128, np.uint8), instances)
    right = sheet.draw()[BETWEEN_PAIRS_PX:-BETWEEN_PAIRS_PX, -64 - BETWEEN_PAIRS_PX : -BETWEEN_PAIRS_PX]
    at = (right == OUTLINE_RGB).all(-1)
    expected = np.zeros((64, 64), bool)
    expected[16:48, 16:48] = True  # four times the nucleus
    expected[17:47, 17:47] = False
    assert np.array_equal(at, expected)

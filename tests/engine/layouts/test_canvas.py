from __future__ import annotations

import cv2
import numpy as np
import pytest

from msdm_engine.errors import RequestError
from msdm_engine.layouts.canvas import MIN_VISIBLE_PX, Canvas, Role


def square(side: float) -> np.ndarray:
    """Covers exactly side x side pixels when centred on a pixel, side odd: fillPoly fills its border pixels."""
    half = (side - 1) / 2
    return np.array([[-half, -half], [half, -half], [half, half], [-half, half]])


def test_a_square_covers_its_pixels() -> None:
    canvas = Canvas.empty(64, 64)
    assert canvas.add(square(11), (30, 20), 0.0)
    assert np.array_equal(np.argwhere(canvas.labels == 1)[[0, -1]], [[15, 25], [25, 35]])
    assert (canvas.labels == 1).sum() == 121


def test_a_small_overlap_is_given_up_and_a_large_one_refused() -> None:
    canvas = Canvas.empty(64, 64)
    assert canvas.add(square(11), (20, 20), 0.0)
    # One of eleven columns shared: 9 %.
    assert canvas.add(square(11), (30, 20), 0.0, max_clip=0.12)
    assert (canvas.labels == 2).sum() == 110
    assert (canvas.labels == 1).sum() == 121
    # Two of eleven: 18 %.
    assert not canvas.add(square(11), (20, 29), 0.0, max_clip=0.12)
    assert canvas.count == 2


def test_a_gap_is_kept_free() -> None:
    canvas = Canvas.empty(64, 64)
    assert canvas.add(square(11), (20, 20), 0.0)
    # Side by side without a shared pixel; a gap of one pixel takes the first of its eleven columns.
    assert canvas.add(square(11), (31, 20), 0.0, gap_px=1)
    assert (canvas.labels == 2).sum() == 110
    assert not canvas.labels[15:26, 26].any()


def test_what_is_left_is_one_piece() -> None:
    canvas = Canvas.empty(64, 64)
    wide = np.array([[-1.0, -20], [1, -20], [1, 20], [-1, 20]])
    assert canvas.add(wide, (32, 32), 0.0)
    # A long bar across the first is cut in two: the larger part stays, if that loses little enough.
    long = np.array([[-25.0, -2], [8, -2], [8, 2], [-25, 2]])
    assert canvas.add(long, (32, 32), 0.0, max_clip=0.5)
    assert cv2.connectedComponents((canvas.labels == 2).astype(np.uint8), connectivity=4)[0] == 2
    assert not (canvas.labels[:, 33:] == 2).any()


def test_out_of_view_and_slivers_are_refused() -> None:
    canvas = Canvas.empty(64, 64)
    assert not canvas.add(square(11), (-30, 20), 0.0)
    # One visible column of eleven pixels is less than the smallest piece.
    assert MIN_VISIBLE_PX > 11
    assert not canvas.add(square(11), (-5, 20), 0.0)
    assert canvas.add(square(11), (-4, 20), 0.0)
    assert (canvas.labels == 1).sum() == 22


def test_clear_takes_everything_off() -> None:
    canvas = Canvas.empty(64, 64)
    canvas.add(square(11), (20, 20), 0.5, role=Role.STROMA)
    assert canvas.roles == [Role.STROMA]
    assert canvas.angles == [0.5]
    canvas.clear()
    assert canvas.count == 0
    assert not canvas.labels.any()


def test_a_nucleus_lies_in_its_region_by_four_fifths() -> None:
    canvas = Canvas.empty(64, 64)
    canvas.region = np.zeros((64, 64), np.uint8)
    canvas.region[:, 30:] = 1
    # Columns 27 to 37: three of eleven outside, 27 %.
    assert not canvas.add(square(11), (32, 20), 0.0)
    # Columns 28 to 38: two of eleven, 18 %.
    assert canvas.add(square(11), (33, 20), 0.0)
    assert (canvas.labels == 1).sum() == 121


def test_nuclei_give_way_to_foreign_ones() -> None:
    canvas = Canvas.empty(64, 64)
    canvas.foreign = np.zeros((64, 64), np.uint8)
    canvas.foreign[:, 30:] = 1
    # Columns 20 to 30: one of eleven is taken.
    assert canvas.add(square(11), (25, 20), 0.0)
    assert (canvas.labels == 1).sum() == 110
    assert not canvas.add(square(11), (40, 40), 0.0)
    assert np.array_equal(canvas.taken, (canvas.labels > 0) | (canvas.foreign > 0))


def test_fit_changes_nothing() -> None:
    canvas = Canvas.empty(64, 64)
    found = canvas.fit(square(11), (30, 20))
    assert found is not None
    assert found[1].sum() == 121
    assert (canvas.count, int(canvas.labels.max())) == (0, 0)


def test_labels_run_out() -> None:
    canvas = Canvas.empty(64, 64)
    canvas.roles = [Role.MAIN] * 65535
    with pytest.raises(RequestError, match="65535"):
        canvas.add(square(11), (20, 20), 0.0)

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from msdm_engine.errors import InputError, RequestError
from msdm_engine.layouts import (
    Add,
    Edit,
    Elongate,
    Grow,
    LayoutRequest,
    Remove,
    Shrink,
    Swap,
    draw_layout,
    edit_instances,
)
from msdm_engine.layouts.canvas import Canvas
from msdm_engine.layouts.statistics import nuclei_of, statistics_of

EDITS: tuple[Edit, ...] = (Grow(3), Shrink(2), Elongate(1.7), Add(12), Remove(0.3), Swap(0.5))
each_edit = pytest.mark.parametrize("edit", EDITS, ids=lambda edit: type(edit).__name__)


def rectangles(*boxes: tuple[int, int, int, int], side: int = 60) -> np.ndarray:
    """Filled boxes (y0, y1, x0, x1), the ends excluded, labelled in this order."""
    labels = np.zeros((side, side), np.uint16)
    for label, (y0, y1, x0, x1) in enumerate(boxes, start=1):
        labels[y0:y1, x0:x1] = label
    return labels


def tissue(kind: str = "columnar", seed: int = 3) -> np.ndarray:
    return draw_layout(LayoutRequest(kind, 160, 200, seed, crowding=0.8))


@each_edit
@pytest.mark.parametrize("kind", ["columnar", "round"])
def test_labels_stay_consecutive_and_the_input_as_it_was(edit: Edit, kind: str) -> None:
    before = tissue(kind)
    given = before.copy()
    after = edit_instances(before, edit, seed=1)
    assert np.array_equal(before, given)
    assert (after.dtype.name, after.shape) == ("uint16", before.shape)
    n = int(after.max())
    assert np.array_equal(np.unique(after), np.arange(n + 1))
    expected = {Add: before.max() + 12, Remove: before.max() - round(0.3 * before.max())}
    assert n == expected.get(type(edit), before.max())
    for label in range(1, n + 1):
        assert cv2.connectedComponents((after == label).astype(np.uint8), connectivity=8)[0] == 2
    assert np.array_equal(edit_instances(before, edit, seed=1), after)


@each_edit
def test_gaps_in_the_numbering_change_nothing(edit: Edit) -> None:
    before = tissue()
    sparse = before.astype(np.int64) * 70_000
    assert np.array_equal(edit_instances(sparse, edit, seed=2), edit_instances(before, edit, seed=2))


# --- grow ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("px", [1, 2.5, 6])
def test_a_pixel_grows_to_a_disc(px: float) -> None:
    y, x = np.indices((31, 31))
    start = ((y == 15) & (x == 14)).astype(np.uint16)
    assert np.array_equal(edit_instances(start, Grow(px)), np.hypot(y - 15, x - 14) <= px)


def test_growth_stops_half_way_between_neighbours() -> None:
    # Ten columns between them, 20 to 29: five for each.
    grown = edit_instances(rectangles((20, 30, 10, 20), (20, 30, 30, 40)), Grow(20))
    assert (grown[20:30, 10:25] == 1).all()
    assert (grown[20:30, 25:40] == 2).all()
    # The map's corners are more than 20 px away.
    assert grown[0, 0] == grown[-1, -1] == 0


def test_of_two_at_one_distance_the_first_grows() -> None:
    # Nine columns between them: the middle one is five away from both.
    grown = edit_instances(rectangles((20, 30, 10, 20), (20, 30, 29, 39)), Grow(20))
    assert (grown[20:30, 24] == 1).all()
    assert (grown[20:30, 25] == 2).all()


def test_growth_takes_only_background() -> None:
    before = tissue()
    after = edit_instances(before, Grow(2))
    assert np.array_equal(after[before > 0], before[before > 0])
    distance = cv2.distanceTransform((before == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert np.array_equal(after > 0, distance <= 2)


def test_growth_that_a_neighbour_cuts_off_stays_background() -> None:
    # Nucleus 2 is a wall across the map; 1 reaches over it by distance, but is nearer nowhere beyond.
    walls = rectangles((28, 31, 10, 13), (0, 60, 16, 18))
    grown = edit_instances(walls, Grow(12))
    assert not (grown[:, 18:] == 1).any()


# --- shrink ----------------------------------------------------------------------------------------------------


def test_a_rectangle_shrinks_by_layers() -> None:
    shrunk = edit_instances(rectangles((20, 29, 10, 17)), Shrink(2))
    assert np.array_equal(shrunk, rectangles((22, 27, 12, 15)))


def test_the_border_of_the_map_is_no_outside() -> None:
    # Cut by the left border and the upper one: only its lower and right side shrink.
    shrunk = edit_instances(rectangles((0, 20, 0, 15)), Shrink(3))
    assert np.array_equal(shrunk, rectangles((0, 17, 0, 12)))
    full = np.ones((20, 20), np.uint16)
    assert np.array_equal(edit_instances(full, Shrink(5)), full)


def test_a_touching_neighbour_is_outside() -> None:
    shrunk = edit_instances(rectangles((10, 30, 10, 20), (10, 30, 20, 30)), Shrink(1))
    assert np.array_equal(shrunk, rectangles((11, 29, 11, 19), (11, 29, 21, 29)))


def test_the_innermost_pixel_stays_unless_it_may_go() -> None:
    small = rectangles((10, 13, 10, 13), (30, 50, 30, 50))
    kept = edit_instances(small, Shrink(5))
    assert np.argwhere(kept == 1).tolist() == [[11, 11]]
    assert np.array_equal(kept == 2, rectangles((35, 45, 35, 45)) == 1)
    gone = edit_instances(small, Shrink(5, vanish=True))
    assert np.array_equal(gone, rectangles((35, 45, 35, 45)))


def test_of_a_dumbbell_the_larger_end_stays() -> None:
    dumbbell = np.maximum(rectangles((20, 32, 5, 17)), rectangles((24, 28, 17, 30)))
    dumbbell = np.maximum(dumbbell, rectangles((18, 34, 30, 46)))
    shrunk = edit_instances(dumbbell, Shrink(3))
    # Where the neck joins it, a little more than its own core of 10 x 10 stays.
    assert (shrunk[rectangles((21, 31, 33, 43)) > 0] == 1).all()
    assert not shrunk[:, :30].any()


def test_grow_after_shrink_gives_rectangles_back() -> None:
    # The innermost pixel that a disc of radius 3 reaches a corner from is 3 px along both axes away from it: the five
    # pixels farther than that from it are lost, at four corners of two rectangles.
    start = rectangles((10, 30, 10, 25), (40, 55, 10, 40))
    back = edit_instances(edit_instances(start, Shrink(3)), Grow(3))
    assert not (back[start == 0]).any()
    assert np.count_nonzero(start) - np.count_nonzero(back) == 5 * 4 * 2


# --- elongate --------------------------------------------------------------------------------------------------


def ellipse(angle_deg: float, long: float, short: float, centre: tuple[float, float] = (60, 60)) -> np.ndarray:
    y, x = np.indices((120, 120))
    turn = math.radians(angle_deg)
    along = (x - centre[0]) * math.cos(turn) + (y - centre[1]) * math.sin(turn)
    across = (y - centre[1]) * math.cos(turn) - (x - centre[0]) * math.sin(turn)
    return ((along / long) ** 2 + (across / short) ** 2 <= 1).astype(np.uint16)


@pytest.mark.parametrize("angle_deg", [0, 25, 90, 140])
@pytest.mark.parametrize("factor", [1.3, 2.0])
def test_an_ellipse_keeps_area_place_and_direction(angle_deg: float, factor: float) -> None:
    before = nuclei_of(ellipse(angle_deg, 20, 12))
    after = nuclei_of(edit_instances(ellipse(angle_deg, 20, 12), Elongate(factor)))
    # Half axes of 28 and 8.5 px at the most. A quarter of a pixel on the short one is 3 %; interpolation rounds off the
    # tips by about as much of the long one.
    assert after.aspect_ratio[0] == pytest.approx(factor * before.aspect_ratio[0], rel=0.05)
    assert after.area_px[0] == pytest.approx(before.area_px[0], rel=0.03)
    np.testing.assert_allclose(after.centroid[0], before.centroid[0], atol=0.3)
    turned = math.degrees(after.angle[0] - before.angle[0])
    assert abs((turned + 90) % 180 - 90) < 1


def test_neighbours_share_what_both_reach() -> None:
    # Two upright ellipses end to end, 4 px apart: both would grow by 4 px towards the other and more.
    pair = np.maximum(ellipse(90, 18, 12, (60, 35)), 2 * ellipse(90, 18, 12, (60, 75)))
    after = edit_instances(pair, Elongate(1.6))
    assert np.array_equal(np.unique(after), [0, 1, 2])
    # By symmetry they meet in the middle, at y = 55.
    assert (after[:55] != 2).all()
    assert (after[56:] != 1).all()
    assert {1, 2} <= set(after[53:58, 60].tolist())


def test_a_cut_nucleus_stays_at_the_border() -> None:
    cut = np.ascontiguousarray(ellipse(0, 30, 10)[:, 55:])
    after = edit_instances(cut, Elongate(1.5))
    assert after[60, 0] == 1
    # Its long axis lies across the border: it reaches further in, and is narrower at the border.
    assert np.flatnonzero(after[60])[-1] > np.flatnonzero(cut[60])[-1]
    assert np.count_nonzero(after[:, 0]) < np.count_nonzero(cut[:, 0])


def test_median_aspect_ratio_of_a_tissue() -> None:
    before, after = (
        statistics_of(m).aspect_median for m in (tissue("round"), edit_instances(tissue("round"), Elongate(1.5)))
    )
    # Neighbours keep some nuclei from their full length: 10 %.
    assert after / before == pytest.approx(1.5, rel=0.1)


def test_no_nucleus_is_lost_in_a_crowd() -> None:
    # Single pixels beside large nuclei, which would be stretched over them.
    crowd = rectangles((10, 14, 5, 45), (14, 30, 24, 26), (14, 15, 23, 24), (14, 15, 26, 27), (9, 10, 20, 21))
    after = edit_instances(crowd, Elongate(4))
    assert after.max() == 5


# --- add, remove, swap -----------------------------------------------------------------------------------------


def test_added_nuclei_come_after_the_others_in_free_places() -> None:
    before = tissue("round")
    after = edit_instances(before, Add(15), seed=4)
    n = int(before.max())
    assert np.array_equal(np.where(after <= n, after, 0), before)
    old, new = nuclei_of(before), nuclei_of(after)
    # A filled outline scatters by a tenth around its area, and may give a quarter of it to neighbours; the border cuts.
    whole = ~new.cut[n:]
    assert whole.any()
    assert (new.area_px[n:][whole] >= 0.6 * old.area_px[~old.cut].min()).all()
    assert (new.area_px[n:] <= 1.2 * old.area_px.max()).all()


def test_added_nuclei_lie_in_the_tissue() -> None:
    # A row of nuclei in a large empty map: added ones come near it, not into the middle of nowhere.
    row = rectangles(*((20, 40, 20 + 30 * i, 34 + 30 * i) for i in range(10)), side=400)
    added = nuclei_of(edit_instances(row, Add(6), seed=1))
    # About twice 1.2 roots of the median area (280 px) from the row: 40 px; twice that for the tail.
    assert added.centroid[10:, 1].max() < 40 + 80


def test_no_room_to_add() -> None:
    with pytest.raises(RequestError, match=r"only \d+ of 200 added nuclei found room beside the \d+ in the map"):
        edit_instances(tissue("round")[:90, :90], Add(200))


@pytest.mark.parametrize(
    "labels", [np.zeros((80, 80), np.uint16), rectangles((0, 30, 0, 30)), rectangles((9, 13, 9, 13))]
)
def test_no_area_to_take(labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="no nucleus to take an area from"):
        edit_instances(labels, Add(1))


def test_too_many_to_add() -> None:
    with pytest.raises(RequestError, match="65535 more do not fit 16-bit labels"):
        edit_instances(tissue("round"), Add(65535))


def test_removed_nuclei_leave_the_others_as_they_were() -> None:
    before = tissue("round")
    after = edit_instances(before, Remove(0.4), seed=5)
    assert np.array_equal(np.where(after > 0, before, 0)[after > 0], before[after > 0])
    # In the same order, without gaps.
    left = np.unique(before[after > 0])
    assert np.array_equal(after, np.searchsorted(np.append(0, left), np.where(after > 0, before, 0)))
    assert not np.array_equal(edit_instances(before, Remove(0.4), seed=6), after)
    assert edit_instances(before, Remove(1.0)).max() == 0


def test_swapped_nuclei_keep_place_size_and_direction() -> None:
    before = tissue("round")
    after = edit_instances(before, Swap(0.5), seed=2)
    old, new = nuclei_of(before), nuclei_of(after)
    changed = np.array([not np.array_equal(before == k, after == k) for k in range(1, int(before.max()) + 1)])
    drawable = ~old.cut & (old.area_px >= 30)
    assert changed.sum() == round(0.5 * drawable.sum())
    assert not changed[~drawable].any()
    assert np.hypot(*(new.centroid - old.centroid)[changed].T).max() < 4
    ratio = new.area_px[changed] / old.area_px[changed]
    # At worst it is drawn at 0.8 of its area and cut by a quarter; mostly as it was, within the tenth of filling.
    assert (ratio > 0.55).all()
    assert abs(np.median(ratio) - 1) < 0.1
    assert abs(np.median(new.aspect_ratio[changed] / old.aspect_ratio[changed]) - 1) < 0.1


def test_no_room_to_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tissue("round")
    monkeypatch.setattr(Canvas, "fit", lambda *args, **kwargs: None)
    with pytest.raises(RequestError, match=r"only 0 of \d+ nuclei could be swapped"):
        edit_instances(before, Swap(1.0))


@pytest.mark.parametrize("edit", [Add(5), Remove(0.5), Swap(0.5)], ids=lambda edit: type(edit).__name__)
def test_seed_and_index_decide(edit: Edit) -> None:
    before = tissue("round")
    streams = ((1, 0), (2, 0), (1, 1))
    results = {edit_instances(before, edit, seed=seed, index=index).tobytes() for seed, index in streams}
    assert len(results) == 3


def test_edits_of_an_empty_map() -> None:
    empty = np.zeros((70, 70), np.uint16)
    for edit in EDITS:
        if not isinstance(edit, Add):
            assert not edit_instances(empty, edit).any()


# --- errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Grow(0), "grow: px is 0"),
        (lambda: Grow(65), "grow: px is 65"),
        (lambda: Grow(math.nan), "grow: px is nan"),
        (lambda: Shrink(-1), "shrink: px is -1"),
        (lambda: Elongate(1), "elongate: factor is 1"),
        (lambda: Elongate(4.5), r"elongate: factor is 4.5\n  note: legal: above 1 to 4"),
        (lambda: Add(0), "add: count is 0"),
        (lambda: Add(2.0), "add: count is 2.0"),  # type: ignore[arg-type]
        (lambda: Remove(0), "remove: share is 0"),
        (lambda: Swap(1.1), "swap: share is 1.1"),
        (lambda: Swap(True), "swap: share is True"),
    ],
)
def test_numbers_out_of_range(make: object, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    "labels",
    [np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8), np.zeros((4, 4)), np.full((4, 4), -1)],
)
def test_no_instance_map(labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="is no instance map"):
        edit_instances(labels, Grow(1))


def test_more_nuclei_than_16_bits() -> None:
    with pytest.raises(InputError, match="more than 65535 nuclei"):
        edit_instances(np.arange(1, 300 * 300 + 1).reshape(300, 300), Grow(1))

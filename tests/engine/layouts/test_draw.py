from __future__ import annotations

import cv2
import numpy as np
import pytest

from msdm_engine.errors import RequestError
from msdm_engine.layouts import LAYOUTS, LayoutRequest, draw_canvas, draw_layout
from msdm_engine.layouts.canvas import Canvas, Role
from msdm_engine.layouts.registry import draw_into, stream
from msdm_engine.layouts.request import MAX_COVERAGE

each_kind = pytest.mark.parametrize("kind", sorted(LAYOUTS))


@each_kind
def test_same_seed_same_bytes(kind: str) -> None:
    request = LayoutRequest(kind, 200, 200, seed=7, index=3)
    assert draw_layout(request).tobytes() == draw_layout(request).tobytes()


@each_kind
def test_other_seed_or_index_other_map(kind: str) -> None:
    maps = [draw_layout(LayoutRequest(kind, 128, 128, seed, index)) for seed, index in ((1, 0), (2, 0), (1, 1), (0, 1))]
    assert len({m.tobytes() for m in maps}) == 4


@each_kind
@pytest.mark.parametrize(("height_px", "width_px"), [(64, 64), (64, 257), (131, 97), (300, 301)])
@pytest.mark.parametrize("crowding", [0.0, 1.0])
def test_labels_are_consecutive_and_in_one_piece(kind: str, height_px: int, width_px: int, crowding: float) -> None:
    for seed in range(3):
        canvas = draw_canvas(LayoutRequest(kind, height_px, width_px, seed, crowding=crowding))
        labels = canvas.labels
        assert labels.shape == (height_px, width_px)
        assert labels.dtype == np.uint16
        # A nucleus that another one had painted over would be missing here.
        assert np.array_equal(np.unique(labels[labels > 0]), np.arange(1, canvas.count + 1))
        assert canvas.count > 0
        for label in range(1, canvas.count + 1):
            # Background and one piece, with the strictest connectivity.
            assert cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=4)[0] == 2


@each_kind
def test_borders_cut_nuclei(kind: str) -> None:
    labels = [draw_layout(LayoutRequest(kind, 256, 256, seed)) for seed in range(4)]
    cut, all_ = 0, 0
    for m in labels:
        cut += len(set(np.concatenate([m[0], m[-1], m[:, 0], m[:, -1]]).tolist()) - {0})
        all_ += int(m.max())
    # Real train tiles: 9 % to 67 %, by size of nuclei.
    assert 0.09 <= cut / all_ <= 0.67


@each_kind
@pytest.mark.parametrize("side", [64, 200])
@pytest.mark.parametrize("crowding", [0.0, 1.0])
def test_the_largest_legal_count_finds_room(kind: str, side: int, crowding: float) -> None:
    for seed in range(4):
        free = LayoutRequest(kind, side, side, seed, crowding=crowding)
        most = max(1, int(free.count_at(MAX_COVERAGE[kind])))
        labels = draw_layout(LayoutRequest(kind, side, side, seed, crowding=crowding, count=most))
        assert labels.max() == most


def test_a_region_of_the_whole_map_changes_nothing() -> None:
    request = LayoutRequest("round", 128, 128, seed=3)
    canvas = Canvas.empty(128, 128)
    canvas.region = np.ones((128, 128), np.uint8)
    draw_into(canvas, request, stream(request.seed, request.index))
    assert np.array_equal(canvas.labels, draw_layout(request))


def test_no_room_is_an_error_that_says_how_many_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    # No layout reaches this within the legal ranges, so the limit is lifted.
    monkeypatch.setattr("msdm_engine.layouts.request.MAX_COVERAGE", {"round": 2.0})
    with pytest.raises(RequestError, match=r"only \d+ of 60 nuclei of 200 px .* seed 1, index 0"):
        draw_layout(LayoutRequest("round", 64, 64, seed=1, area_px=200, count=60))


def test_longest_side() -> None:
    labels = draw_layout(LayoutRequest("columnar", 64, 4096, seed=1, area_px=500))
    assert labels.shape == (64, 4096)
    # Bands repeat across the picture: nuclei in both halves, not only around its centre.
    assert labels[:, :1000].any()
    assert labels[:, -1000:].any()


@pytest.mark.parametrize("kind", ["columnar", "gland"])
def test_no_stroma_when_none_is_asked(kind: str) -> None:
    for seed in range(3):
        bare = draw_canvas(LayoutRequest(kind, 256, 256, seed, stroma=0))
        assert Role.STROMA not in bare.roles
    dense = draw_canvas(LayoutRequest(kind, 256, 256, 1, stroma=1))
    assert Role.STROMA in dense.roles

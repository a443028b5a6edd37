from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from msdm_engine.errors import InputError, RequestError
from msdm_engine.layouts import LAYOUTS, FittedLayout, LayoutRequest, draw_layout, fit_layout
from msdm_engine.layouts.moments import Moments, Sizes, matched_sizes, seen_maps
from msdm_engine.layouts.statistics import nuclei_of, statistics_of


def drawn(kind: str, maps: int = 8, size: int = 256, seed: int = 50, **options: Any) -> list[np.ndarray]:
    return [draw_layout(LayoutRequest(kind, size, size, seed, index, **options)) for index in range(maps)]


def tiled(side: int, cell: int, gap: int) -> np.ndarray:
    """Squares in rows, a few of them cut by the border."""
    labels = np.zeros((side, side), np.uint16)
    for label, at in enumerate(np.ndindex(side // cell, side // cell), start=1):
        y, x = (k * cell + 3 for k in at)
        labels[y : y + cell - gap, x : x + cell - gap] = label
    return labels


KNOWN: dict[str, dict[str, Any]] = {
    "round": {"count": 45, "area_px": 250, "aspect_ratio": 1.5, "area_spread": 0.3, "crowding": 0.7},
    "spindle": {"count": 30, "area_px": 300, "aspect_ratio": 3.2, "crowding": 0.5, "orientation_deg": 30},
    "columnar": {"count": 50, "area_px": 300, "aspect_ratio": 2.3, "crowding": 0.7, "orientation_deg": -50},
    "gland": {"count": 80, "area_px": 220, "aspect_ratio": 2.2, "crowding": 0.4},
}


@pytest.mark.parametrize("kind", sorted(LAYOUTS))
def test_known_parameters_come_back(kind: str) -> None:
    known = KNOWN[kind]
    fitted = fit_layout(drawn(kind, **known))
    request = fitted.request(seed=1)
    assert fitted.kind == request.kind == kind
    # Numbers are taken over.
    assert request.count == known["count"]
    # 200 to 500 whole nuclei on each side of the comparison: the standard error of a median of log areas with spread
    # 0.45 is 1.25 * 0.45 / sqrt(200) = 4 % for each, 6 % for their difference; 2 of these.
    assert request.area_px == pytest.approx(known["area_px"], rel=0.12)
    # Excess over one: log spread 0.55, so 5 % each and 7 % for the difference; 2 of these.
    assert request.aspect_ratio is not None
    assert request.aspect_ratio - 1 == pytest.approx(known["aspect_ratio"] - 1, rel=0.15)
    # Quartiles of 200: 0.45 * 1.1 / sqrt(200) = 0.035 each, 0.05 for the difference; 2 of these.
    assert request.area_spread == pytest.approx(known.get("area_spread", 0.45), abs=0.1)
    # The share of touching nuclei changes by 0.2 to 0.6 over all of crowding, and scatters by 0.03 to 0.04.
    assert request.crowding == pytest.approx(known.get("crowding", 0.5), abs=0.35)
    if "orientation_deg" in known:
        assert request.orientation_deg is not None
        # As in test_what_is_asked: directions bend by up to 22 degrees within a map, averaged over eight of them.
        assert abs((request.orientation_deg - known["orientation_deg"] + 90) % 180 - 90) < 10
    else:
        assert request.orientation_deg is None


def test_drawn_after_a_fit_is_like_the_given() -> None:
    given = [statistics_of(m) for m in drawn("round", count=40, area_px=200, crowding=0.9)]
    fitted = fit_layout(drawn("round", count=40, area_px=200, crowding=0.9))
    new = [statistics_of(draw_layout(fitted.request(seed=7, index=index))) for index in range(8)]
    mean = {
        name: [float(np.mean([getattr(s, name) for s in maps])) for maps in (given, new)]
        for name in ("count", "area_median_px", "aspect_median", "touching", "foreground")
    }
    assert mean["count"][0] == mean["count"][1]
    # Twice the standard errors of the last test.
    for name, tolerance in (("area_median_px", 0.12), ("aspect_median", 0.06), ("foreground", 0.12)):
        assert mean[name][1] == pytest.approx(mean[name][0], rel=tolerance)
    assert mean["touching"][1] == pytest.approx(mean["touching"][0], abs=0.1)


@pytest.fixture(scope="module")
def two_magnifications() -> FittedLayout:
    return fit_layout(drawn("round", 4, count=40, area_px=120) + drawn("round", 4, count=12, area_px=800))


def test_each_map_follows_one_given_map(two_magnifications: FittedLayout) -> None:
    requests = [two_magnifications.request(seed=3, index=index) for index in range(16)]
    counts = [request.count or 0 for request in requests]
    assert sorted(counts[:8]) == sorted(counts[8:]) == [12] * 4 + [40] * 4
    logs = {n: float(np.mean([np.log(r.area_px or 0) for r in requests if r.count == n])) for n in (12, 40)}
    # Areas go with their numbers. A median of eight whole nuclei scatters by 1.25 * 0.48 / sqrt(8) = 0.2, the mean of
    # four of them by 0.1; 2 of these, and 0.1 for what is drawn towards the common mean.
    assert logs[12] - logs[40] == pytest.approx(np.log(800 / 120), abs=0.3)
    assert counts != [two_magnifications.request(seed=4, index=index).count for index in range(16)]


def test_numbers_grow_with_the_area_in_view() -> None:
    fitted = fit_layout(drawn("round", 4, count=40, area_px=200, aspect_ratio=1.2))
    large = fitted.request(seed=1, height_px=512, width_px=256)
    width = (large.length_px + large.breadth_px) / 2
    assert (large.height_px, large.width_px) == (512, 256)
    assert large.count == round(40 * (512 + width) / (256 + width))


def test_a_kind_that_is_asked_for_is_taken() -> None:
    assert fit_layout(drawn("round", 2, size=128), kind="spindle").request(seed=1).kind == "spindle"
    with pytest.raises(RequestError, match="unknown layout 'spindel'"):
        fit_layout(drawn("round", 1, size=64), kind="spindel")


def test_same_masks_same_fit() -> None:
    masks = drawn("round", 3, size=128)
    assert fit_layout(masks) == fit_layout(masks)


def test_fuller_than_a_layout_can_be() -> None:
    # Squares of 18 px every 20 px cover 81 %; round layouts cover 36 % at most.
    full = tiled(128, 20, 2)
    fitted = fit_layout([full] * 2)
    assert fitted.kind == "round"
    assert fitted.over_full() == 2
    labels = draw_layout(fitted.request(seed=1))
    assert 0 < labels.max() < full.max()
    assert fit_layout(drawn("round", 2, size=128)).over_full() == 0


def test_empty_masks_are_counted_and_left_out() -> None:
    fitted = fit_layout([*drawn("round", 3, size=128), np.zeros((128, 128), np.uint16)])
    assert (fitted.empty, len(fitted.maps)) == (1, 3)


@pytest.mark.parametrize(
    ("masks", "match"),
    [
        ([], "0 whole nuclei in 0 masks"),
        ([np.zeros((64, 64), np.uint16)], "0 whole nuclei in 1 masks"),
        ([np.ones((64, 64), np.uint16)], "0 whole nuclei in 1 masks"),
        ([tiled(100, 6, 2)], "a median area of 16 px"),
        ([tiled(40, 10, 2)], "most of the given masks are 40 x 40 px"),
    ],
)
def test_masks_that_no_layout_fits(masks: list[np.ndarray], match: str) -> None:
    with pytest.raises(InputError, match=match):
        fit_layout(masks)


def test_medians_of_maps_that_differ_are_kept_and_of_chance_are_not() -> None:
    near = drawn("round", 6, count=15, area_px=300)
    seen = seen_maps(near, [nuclei_of(m) for m in near])
    own = [statistics_of(m).area_median_px for m in near]
    # One population: the maps' own medians scatter by chance, what is kept of that scatter is less than a half.
    assert np.std([s.area_px for s in seen]) < 0.5 * np.std(own)
    far = [*near[:3], *drawn("round", 3, count=15, area_px=1200)]
    kept = [s.area_px for s in seen_maps(far, [nuclei_of(m) for m in far])]
    own = [statistics_of(m).area_median_px for m in far]
    # Medians of seven whole nuclei have the variance pi / 2 * 0.48^2 / 7 = 0.05, the maps themselves (log(4) / 2)^2 =
    # 0.48: a tenth of their distance of 0.7 from the mean is taken away, twice that for the poorest map.
    assert np.allclose(np.log(kept), np.log(own), atol=0.15)


def test_matched_sizes_invert_what_drawing_does() -> None:
    """A drawing that loses 10 % of the area and a quarter of the excess, and touches more than was asked."""

    def draw(sizes: Sizes) -> Moments:
        return Moments(0.9 * sizes.area, sizes.area_spread + 0.1, 0.75 * sizes.aspect, 0.2 + 0.5 * sizes.crowding)

    sizes, met = matched_sizes(Moments(1.0, 0.5, 1.0, 0.6), draw)
    # Each round multiplies the miss of crowding by 1 - 1.2 * 0.5 = 0.4: 0.15 * 0.4 ** 5 < 0.002.
    assert dataclasses.astuple(sizes) == pytest.approx((1 / 0.9, 0.4, 1 / 0.75, 0.8), abs=0.005)
    assert dataclasses.astuple(met) == pytest.approx((1.0, 0.5, 1.0, 0.6), abs=0.002)


def test_matched_sizes_step_down_where_nothing_fits_and_give_up_in_the_end() -> None:
    def only_small(sizes: Sizes) -> Moments:
        if sizes.area > 0.93:
            raise RequestError("only 3 of 4 nuclei found room")
        return Moments(sizes.area, sizes.area_spread, 1.0, 0.3)

    sizes, _ = matched_sizes(Moments(1.0, 0.5, 1.0, 0.3), only_small)
    assert sizes.area == pytest.approx(0.95**2)

    def never(sizes: Sizes) -> Moments | None:
        raise RequestError("only 3 of 4 nuclei found room")

    with pytest.raises(RequestError, match="only 3 of 4"):
        matched_sizes(Moments(1.0, 0.5, 1.0, 0.3), never)
    with pytest.raises(RequestError, match="no whole nucleus"):
        matched_sizes(Moments(1.0, 0.5, 1.0, 0.3), lambda sizes: None)

"""What is asked is what comes: measured on the drawn maps, pooled over seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from msdm_engine.layouts import LAYOUTS, LayoutRequest, draw_canvas, draw_layout
from msdm_engine.layouts.canvas import Canvas, Role
from msdm_engine.layouts.statistics import Nuclei, nuclei_of, statistics_of

SEEDS = range(6)
each_kind = pytest.mark.parametrize("kind", sorted(LAYOUTS))


def drawn(kind: str, seeds: int = 6, **options: Any) -> list[Canvas]:
    return [draw_canvas(LayoutRequest(kind, 288, 288, seed, **options)) for seed in range(seeds)]


def main_nuclei(canvases: list[Canvas]) -> Nuclei:
    """Whole nuclei of the kind itself, of all maps."""
    parts = []
    for canvas in canvases:
        nuclei = nuclei_of(canvas.labels)
        keep = ~nuclei.cut & (np.array(canvas.roles) == Role.MAIN)
        parts.append([getattr(nuclei, name)[keep] for name in ("area_px", "centroid", "aspect_ratio", "angle", "cut")])
    return Nuclei(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


@each_kind
@pytest.mark.parametrize("count", [5, 40])
def test_count_is_exact(kind: str, count: int) -> None:
    for seed in SEEDS:
        assert draw_layout(LayoutRequest(kind, 256, 256, seed, count=count)).max() == count


def test_density_is_exact() -> None:
    # 500 a million pixels on 0.08 million.
    assert draw_layout(LayoutRequest("round", 200, 400, seed=1, density_per_mpx=500)).max() == 40


@each_kind
@pytest.mark.parametrize("area_px", [100, 450])
@pytest.mark.parametrize("crowding", [0.2, 0.8])
def test_median_area(kind: str, area_px: float, crowding: float) -> None:
    nuclei = main_nuclei(drawn(kind, 12, area_px=area_px, crowding=crowding))
    # 12 %: touching nuclei give some of their area to a neighbour, and the border cuts large ones more often (over
    # 60 seeds both lower it by 0 to 7 %); the rest is the sampling error of the median of 150 nuclei or more.
    assert abs(np.median(nuclei.area_px) / area_px - 1) < 0.12


@pytest.mark.parametrize(
    ("kind", "aspect"),
    [("columnar", 1.6), ("columnar", 2.6), ("round", 1.2), ("round", 1.8), ("spindle", 2.5), ("spindle", 4.5)],
)
def test_median_aspect_ratio(kind: str, aspect: float) -> None:
    nuclei = main_nuclei(drawn(kind, aspect_ratio=aspect))
    # 10 %: clipped neighbours, and pixels: at aspect ratio 4.5 a nucleus of 350 px is 10 px broad, where half
    # a pixel is 5 %.
    assert abs(np.median(nuclei.aspect_ratio) / aspect - 1) < 0.10


@each_kind
def test_area_spread(kind: str) -> None:
    narrow, wide = (main_nuclei(drawn(kind, area_spread=s)) for s in (0.05, 0.6))
    spread = [float(np.std(np.log(n.area_px))) for n in (narrow, wide)]
    # Clipping alone (at most 12 % of a nucleus) adds below 0.1; the limits of the areas take a little away.
    assert spread[0] < 0.15
    assert 0.4 < spread[1] < 0.75


def axial_mean_deg(angle: np.ndarray) -> float:
    """Mean of directions without a head, in [0, 180)."""
    return math.degrees(np.angle(np.exp(2j * angle).sum()) / 2) % 180


def axial_distance_deg(a: float, b: float) -> float:
    return abs((a - b + 90) % 180 - 90)


@pytest.mark.parametrize("orientation_deg", [0, 60, -45])
def test_columnar_nuclei_lie_across_the_palisade_asked_for(orientation_deg: float) -> None:
    nuclei = main_nuclei(drawn("columnar", orientation_deg=orientation_deg))
    # 15 degrees: a palisade bends by a typical slope of up to 0.4 (22 degrees) within a map, averaged over maps.
    assert axial_distance_deg(axial_mean_deg(nuclei.angle), orientation_deg + 90) < 15


@pytest.mark.parametrize("orientation_deg", [0, 60, -45])
def test_spindle_nuclei_lie_along_the_flow_asked_for(orientation_deg: float) -> None:
    nuclei = main_nuclei(drawn("spindle", orientation_deg=orientation_deg))
    # As above: flow lines bend by a typical slope of 0.3 (17 degrees).
    assert axial_distance_deg(axial_mean_deg(nuclei.angle), orientation_deg) < 12
    assert abs(np.exp(2j * nuclei.angle).mean()) > 0.6


@pytest.mark.parametrize("kind", ["columnar", "gland"])
def test_each_palisade_nucleus_lies_across_its_own_line(kind: str) -> None:
    cosines = []
    for canvas in drawn(kind):
        nuclei = nuclei_of(canvas.labels)
        across = np.array(canvas.across)
        keep = np.isfinite(across) & ~nuclei.cut & (nuclei.aspect_ratio > 1.5)
        cosines.append(np.cos(2 * (nuclei.angle - across))[keep])
    # A normal deviation of 12 degrees gives exp(-2 sigma^2) = 0.92; clipping turns some nuclei further.
    assert np.concatenate(cosines).mean() > 0.82


def test_gland_nuclei_point_to_the_lumen() -> None:
    cosines = []
    for seed in SEEDS:
        canvas = draw_canvas(LayoutRequest("gland", 256, 256, seed, rows=1, stroma=0, crowding=0.8))
        labels, nuclei = canvas.labels, nuclei_of(canvas.labels)
        # The middle gland: the background around the picture's centre, seen from its own centre of mass.
        ring = np.hypot(*(nuclei.centroid - 128).T) < 105
        centre = nuclei.centroid[ring].mean(axis=0)
        toward = nuclei.centroid - centre
        keep = ring & ~nuclei.cut & (nuclei.aspect_ratio > 1.5)
        cosines.append(np.cos(2 * (nuclei.angle - np.arctan2(toward[:, 1], toward[:, 0])))[keep])
        # An empty lumen: nothing within half a nucleus (15 px) of the middle.
        assert not labels[113:143, 113:143].any()
    # 1 is a circle of exactly radial nuclei; lobes, a lumen off its centre and neighbouring glands lower it.
    assert np.concatenate(cosines).mean() > 0.6


def test_palisades_are_ordered_and_round_layouts_are_not() -> None:
    order = {
        kind: np.mean([[s.alignment, s.beside] for s in (statistics_of(c.labels) for c in drawn(kind, **options))], 0)
        for kind, options in (("columnar", {"stroma": 0}), ("round", {}))
    }
    # Real train tiles: alignment 0.47, beside 0.23 in columnar ones (their stroma included), 0.27, 0.16 in round ones.
    # 0 is random; round layouts share a direction loosely (60 maps: 0.3, 0.1), six maps scatter by about 0.05.
    assert (order["columnar"] > [0.6, 0.3]).all()
    assert (order["round"] < [0.45, 0.25]).all()


@each_kind
def test_crowding_makes_nuclei_touch(kind: str) -> None:
    loose, dense = (
        np.mean([statistics_of(c.labels).touching for c in drawn(kind, crowding=crowding)]) for crowding in (0.0, 1.0)
    )
    assert dense > loose + 0.15


def test_more_rows_more_palisade_nuclei() -> None:
    one, three = (
        sum(np.isfinite(c.across).sum() for c in drawn("columnar", rows=rows, orientation_deg=0)) for rows in (1, 3)
    )
    # Not three times: interlocking rows stand 1.3 times wider apart, and the border cuts the outer ones off.
    assert three > 1.4 * one

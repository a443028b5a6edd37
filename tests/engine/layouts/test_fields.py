from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from msdm_engine.layouts.fields import Grid, flow_angle, smooth_noise, stream_function
from msdm_engine.layouts.lumen import distance_from_lumen, lines_at, open_lumens, round_lumens
from msdm_engine.layouts.scatter import gap_weight

GRID = Grid(200, 300, step_px=2.0, margin_px=40.0)


def test_grid_covers_picture_and_margin() -> None:
    x, y = GRID.pixels()
    assert (x[0, 0], y[0, 0]) == (-40, -40)
    assert x[0, -1] >= 340
    assert y[-1, 0] >= 240
    assert (y.shape[0], x.shape[1]) == GRID.shape


def test_sample_takes_the_nearest_cell() -> None:
    x, y = GRID.pixels()
    points = np.array([[0.0, 0.0], [10.9, 20.9], [-1000, 5000]])
    np.testing.assert_array_equal(GRID.sample(x + 0 * y, points), [0, 10, -40])
    np.testing.assert_array_equal(GRID.sample(y + 0 * x, points), [0, 20, y[-1, 0]])


def test_points_follow_the_weight() -> None:
    x, y = GRID.pixels()
    weight = np.where((x >= 100) & (y >= 50), 1.0, 0.0)
    points = GRID.draw_points(np.random.default_rng(1), weight, 2000)
    # Up to half a cell (1 px) outside the first cells.
    assert (points >= [99, 49]).all()
    # Uniform over x from 99 to 341: the mean 220 up to four standard errors, 70 / sqrt(2000) = 1.6 px.
    assert abs(points[:, 0].mean() - 220) < 6.3


def test_noise_has_unit_spread_and_its_wavelength() -> None:
    grid = Grid(1000, 1000, 4.0, 0.0)
    noise = smooth_noise(np.random.default_rng(1), grid, 80.0)
    assert noise.shape == grid.shape
    # 25 x 25 knots: the spread is known to about 1 / sqrt(2 * 625) = 3 %, plus the rounding of 0.76.
    assert abs(noise.std() - 1) < 0.15
    # 20 px (a quarter wave) apart correlated, 160 px (two waves) apart not.
    near, far = (np.corrcoef(noise[:, :-lag].ravel(), noise[:, lag:].ravel())[0, 1] for lag in (5, 40))
    assert near > 0.5
    assert abs(far) < 0.2


@pytest.mark.parametrize("degrees", [0, 30, -70])
def test_flow_follows_its_angle(degrees: float) -> None:
    angle = math.radians(degrees)
    straight = flow_angle(stream_function(np.random.default_rng(1), GRID, angle, 100, bend=0.0))
    np.testing.assert_allclose(np.cos(2 * (straight - angle)), 1, atol=1e-9)
    bent = flow_angle(stream_function(np.random.default_rng(1), GRID, angle, 100, bend=0.3))
    # A typical slope of 0.3, so a typical deviation of 17 degrees; half to twice that for one small field.
    deviation = np.sqrt(np.mean(np.sin(bent - angle) ** 2))
    assert 0.15 < deviation < 0.6


def disc(radius_px: float) -> np.ndarray:
    x, y = GRID.pixels()
    return (np.hypot(x - 150, y - 100) < radius_px).astype(np.uint8)


def test_line_around_a_disc_is_a_circle() -> None:
    distance = distance_from_lumen(disc(40), GRID)
    # The other line is the border of the grid.
    line = min(lines_at(distance, GRID, 20.0, smooth_px=6.0), key=lambda line: line.along[-1])
    toward = line.points - (150, 100)
    # A grid step (2 px) of error in the lumen, one in the line.
    np.testing.assert_allclose(np.hypot(*toward.T), 60, atol=3)
    # Along the circle, 2 pi 60 = 377 px; steps of the grid are smoothed away up to 3 %.
    assert abs(line.along[-1] / (2 * np.pi * 60) - 1) < 0.03
    # Outward is radial; a smoothed staircase stays within 15 degrees.
    assert np.cos(line.outward - np.arctan2(toward[:, 1], toward[:, 0])).min() > 0.96


def test_no_lumen_no_lines() -> None:
    distance = distance_from_lumen(np.zeros(GRID.shape, np.uint8), GRID)
    assert np.isinf(distance).all()
    # Tissue everywhere: the only line is the border of the grid, 40 px outside the picture up to the smoothing.
    (line,) = lines_at(distance, GRID, 20.0, smooth_px=6.0)
    outside = np.maximum(-line.points, line.points - (GRID.width_px, GRID.height_px)).max(axis=1)
    assert outside.min() > 30


def test_open_lumens_have_tissue_on_the_side_below() -> None:
    # Along +x and straight enough at this size: going down through the middle, lumen comes before tissue.
    for seed in range(5):
        lumen = open_lumens(np.random.default_rng(seed), GRID, 0.0, 20.0, 30.0, 1.0)
        column = lumen[:, lumen.shape[1] // 2].astype(int)
        ends = np.flatnonzero(np.diff(column) == -1)
        middle = (ends * GRID.step_px - GRID.margin_px) + 15.0
        # The epithelium's midline, 15 px below a lumen's end, lies within a fifth of the short side; waves stretch
        # and shift that by up to a half.
        assert np.abs(middle - 100).min() < 1.5 * 0.2 * 200


def test_less_scale_less_lumen() -> None:
    shares = [
        np.mean([open_lumens(np.random.default_rng(s), GRID, 0.0, 12.0, 15.0, scale).mean() for s in range(8)])
        for scale in (1.0, 0.3)
    ]
    assert shares[1] < 0.7 * shares[0]


def test_round_lumens_keep_their_clearance() -> None:
    lumen = round_lumens(np.random.default_rng(3), GRID, (15, 25), 40.0, offset=(0.0, 0.0), lobes=0.0)
    count, labels = cv2.connectedComponents(lumen)
    assert count > 2
    assert labels[70, 95] > 0  # the picture's centre
    for first in range(1, count):
        distance = cv2.distanceTransform((labels != first).astype(np.uint8), cv2.DIST_L2, 5) * GRID.step_px
        # Two grid steps for the pixels of both discs.
        assert distance[(labels > 0) & (labels != first)].min() > 40 - 4


def test_values_of_the_map_are_repeated_beyond_its_border() -> None:
    values = np.arange(200)[:, None] * 1000 + np.arange(300)
    cells, inside = GRID.from_map(values)
    x, y = GRID.pixels()
    np.testing.assert_array_equal(cells, np.clip(y, 0, 199) * 1000 + np.clip(x, 0, 299))
    np.testing.assert_array_equal(inside, (x >= 0) & (x < 300) & (y >= 0) & (y < 200))


def test_gap_weight_is_zero_on_nuclei_and_outside() -> None:
    labels = np.zeros((200, 300), np.uint16)
    labels[:, :100] = 1
    weight = gap_weight(labels, GRID)
    x, y = GRID.pixels()
    inside = (x >= 0) & (x < 300) & (y >= 0) & (y < 200)
    assert not weight[~inside].any()
    assert not weight[inside & (x < 100)].any()
    assert weight.argmax() % GRID.shape[1] == np.flatnonzero(x[0] < 300)[-1]

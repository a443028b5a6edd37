from __future__ import annotations

import math

import numpy as np

from msdm_engine.layouts.statistics import nuclei_of, statistics_of


def palisade(count: int, height: int, breadth: int, gap: int) -> np.ndarray:
    """Upright rectangles side by side."""
    labels = np.zeros((height + 10, count * (breadth + gap) + 10), np.uint16)
    for i in range(count):
        x = 5 + i * (breadth + gap)
        labels[5 : 5 + height, x : x + breadth] = i + 1
    return labels


def test_moments_of_a_rectangle() -> None:
    nuclei = nuclei_of(palisade(1, 20, 8, 0))
    assert nuclei.area_px[0] == 160
    # Pixels 5..12 and 5..24.
    np.testing.assert_allclose(nuclei.centroid[0], [8.5, 14.5])
    np.testing.assert_allclose(nuclei.aspect_ratio[0], 20 / 8)
    np.testing.assert_allclose(abs(nuclei.angle[0]), math.pi / 2)
    assert not nuclei.cut[0]


def test_angle_runs_from_right_to_down() -> None:
    nuclei = nuclei_of(np.eye(30, dtype=np.uint16))
    np.testing.assert_allclose(nuclei.angle[0], math.pi / 4)
    assert nuclei.cut[0]


def test_a_palisade_is_aligned_and_side_by_side() -> None:
    s = statistics_of(palisade(7, 20, 8, 2))
    assert (s.count, s.touching, s.cut) == (7, 0.0, 0.0)
    np.testing.assert_allclose([s.alignment, s.beside], 1)
    # Ten pixels from centre to centre.
    np.testing.assert_allclose(s.neighbour, 10 / math.sqrt(160))
    np.testing.assert_allclose(s.foreground, 7 * 160 / (30 * 80))
    np.testing.assert_allclose(s.count_per_mpx, 7 / (30 * 80) * 1e6)


def test_end_to_end_is_the_opposite_of_beside() -> None:
    # Rectangles 8 long and 4 high in a row: the neighbour lies along the long axis.
    s = statistics_of(palisade(4, 4, 8, 2))
    np.testing.assert_allclose([s.alignment, s.beside], [1, -1])


def test_touching_nuclei() -> None:
    assert statistics_of(palisade(4, 20, 8, 0)).touching == 1.0


def test_gaps_in_the_numbering_are_legal() -> None:
    labels = palisade(3, 20, 8, 2)
    assert statistics_of(labels * 5) == statistics_of(labels)


def test_empty_and_lone() -> None:
    empty = statistics_of(np.zeros((40, 40), np.uint16))
    assert (empty.count, empty.foreground) == (0, 0.0)
    assert math.isnan(empty.area_median_px)
    assert math.isnan(empty.touching)
    lone = statistics_of(palisade(1, 20, 8, 0))
    assert lone.area_median_px == 160
    assert math.isnan(lone.neighbour)
    assert math.isnan(lone.alignment)

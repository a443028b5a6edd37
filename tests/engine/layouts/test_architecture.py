from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from msdm_engine.layouts.architecture import Architecture, architecture_of, kind_of
from msdm_engine.layouts.statistics import nuclei_of


def bars(places: list[tuple[float, float]], angles: list[float], length: float, breadth: float) -> np.ndarray:
    """Rectangles [300, 300] at (x, y), their long side along the angle in radians."""
    labels = np.zeros((300, 300), np.uint16)
    for label, (place, angle) in enumerate(zip(places, angles, strict=True), start=1):
        corners = cv2.boxPoints((place, (length, breadth), math.degrees(angle)))
        cv2.fillPoly(labels, [np.rint(corners).astype(np.int32)], label)
    return labels


ROW = [(30.0 + 24 * i, 150.0) for i in range(11)]
RING = [(150 + 90 * math.cos(t), 150 + 90 * math.sin(t)) for t in np.arange(24) * math.pi / 12]
RADIAL = [t * math.pi / 12 for t in range(24)]


def seen(labels: np.ndarray) -> Architecture:
    return architecture_of([nuclei_of(labels)])


def test_a_row_side_by_side_is_columnar() -> None:
    row = seen(bars(ROW, [math.pi / 2] * 11, 40, 14))
    assert (row.flank, row.coherence, row.common) == pytest.approx((1, 1, 1))
    assert abs(row.direction) == pytest.approx(math.pi / 2)
    assert kind_of(row) == "columnar"


def test_a_row_end_to_end_is_spindle() -> None:
    row = seen(bars(ROW, [0.0] * 11, 20, 7))
    assert (row.flank, row.coherence) == pytest.approx((-1, 1))
    assert kind_of(row) == "spindle"


def test_a_ring_across_is_a_gland() -> None:
    ring = seen(bars(RING, RADIAL, 30, 12))
    # Directions cancel by symmetry. Neighbours on a circle stand side by side but for half their 15 degrees.
    assert ring.coherence == 0
    assert ring.flank > 0.9
    assert kind_of(ring) == "gland"


def test_squares_are_round_whatever_their_order() -> None:
    assert kind_of(seen(bars(ROW, [0.0] * 11, 14, 14))) == "round"


def test_direction_is_common_only_if_all_maps_share_it() -> None:
    upright, level = (nuclei_of(bars(ROW, [angle] * 11, 20, 7)) for angle in (math.pi / 2, 0.0))
    both = architecture_of([upright, level])
    assert both.coherence == pytest.approx(1)
    assert both.common == 0


def test_too_few_nuclei_are_round() -> None:
    lone = seen(bars(ROW[:1], [0.0], 14, 12))
    assert math.isnan(lone.flank)
    assert lone.coherence == 0
    assert kind_of(lone) == "round"

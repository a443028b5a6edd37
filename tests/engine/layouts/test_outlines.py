from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from msdm_engine.errors import BundleError, RequestError
from msdm_engine.layouts.canvas import Canvas
from msdm_engine.layouts.outlines import (
    BANK_PATH,
    OutlineBank,
    Shapes,
    default_bank,
    load_bank,
    points_from_descriptors,
    polygon_moments,
    shapes_from_bank,
)
from msdm_engine.layouts.statistics import nuclei_of


def ellipse_bank(*axes: tuple[float, float]) -> OutlineBank:
    """One harmonic: x = a cos t, y = b sin t."""
    values = np.array([[[a, 0, 0, b]] for a, b in axes], np.float32)
    return OutlineBank({"ellipse": values}, "CC0", "geometry")


def test_shipped_bank_is_small_licensed_and_of_three_architectures() -> None:
    bank = default_bank()
    assert set(bank.coefficients) == {"columnar", "round", "spindle"}
    assert all(1 <= len(values) <= 600 for values in bank.coefficients.values())
    assert bank.licence.startswith("CC0")
    assert "train" in bank.source
    assert BANK_PATH.stat().st_size < 300_000
    assert default_bank() is bank


def test_bank_survives_json(tmp_path: Path) -> None:
    path = tmp_path / "bank.json"
    bank = ellipse_bank((0.7, 0.45), (0.9, 0.35))
    path.write_text(bank.to_json())
    read = load_bank(path)
    # float16 keeps 11 bits.
    np.testing.assert_allclose(read.coefficients["ellipse"], bank.coefficients["ellipse"], rtol=2**-11)
    assert (read.licence, read.source) == ("CC0", "geometry")


def test_missing_bank(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no outline bank"):
        load_bank(tmp_path / "none.json")


def test_bank_that_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "bank.json"
    path.write_bytes(b"\xff{")
    with pytest.raises(BundleError, match="not JSON"):
        load_bank(path)


def test_bank_of_another_format(tmp_path: Path) -> None:
    path = tmp_path / "bank.json"
    path.write_text('{"format": "msdm-outlines/9"}')
    with pytest.raises(BundleError, match="msdm-outlines/9"):
        load_bank(path)
    path.write_text("[]")
    with pytest.raises(BundleError, match="list"):
        load_bank(path)


@pytest.mark.parametrize("damage", ["count", "letters", "missing", "nan", "empty"])
def test_damaged_bank(tmp_path: Path, damage: str) -> None:
    record = json.loads(ellipse_bank((0.7, 0.45)).to_json())
    group = record["groups"]["ellipse"]
    if damage == "count":
        group["count"] = 2
    elif damage == "letters":
        group["coefficients"] = "?" + group["coefficients"][1:]
    elif damage == "missing":
        del record["licence"]
    elif damage == "nan":
        group["coefficients"] = "AH4AfgB+AH4="  # four float16 that are not numbers
    else:
        group.update(count=0, coefficients="")
    path = tmp_path / "bank.json"
    path.write_text(json.dumps(record))
    with pytest.raises(BundleError, match="damaged"):
        load_bank(path)


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(RequestError, match="did you mean 'ellipse'"):
        shapes_from_bank(ellipse_bank((1, 1)), "elipse")


def test_polygon_moments_of_a_rectangle() -> None:
    # 4 x 2 around (10, 5): area 8, variances 4^2 / 12 and 2^2 / 12.
    rectangle = np.array([[[8.0, 4], [12, 4], [12, 6], [8, 6]]])
    for points in (rectangle, rectangle[:, ::-1]):
        area, centroid, covariance = polygon_moments(points)
        np.testing.assert_allclose(area, [8])
        np.testing.assert_allclose(centroid, [[10, 5]])
        np.testing.assert_allclose(covariance[0], [[16 / 12, 0], [0, 4 / 12]], atol=1e-12)


def test_descriptors_of_an_ellipse_are_an_ellipse() -> None:
    points = points_from_descriptors(np.array([[[3.0, 0, 0, 2]]]), 8)
    turn = np.arange(8) / 8 * 2 * np.pi
    np.testing.assert_allclose(points[0], np.stack([3 * np.cos(turn), 2 * np.sin(turn)], 1), atol=1e-12)


def test_shapes_are_centred_upright_sorted_and_of_unit_area() -> None:
    for architecture in default_bank().coefficients:
        shapes = shapes_from_bank(default_bank(), architecture)
        area, centroid, covariance = polygon_moments(shapes.points)
        np.testing.assert_allclose(area, 1, rtol=1e-9)
        np.testing.assert_allclose(centroid, 0, atol=1e-9)
        np.testing.assert_allclose(covariance[:, 0, 1], 0, atol=1e-9)
        ratio = np.sqrt(covariance[:, 0, 0] / covariance[:, 1, 1])
        np.testing.assert_allclose(ratio, shapes.aspect_ratio, rtol=1e-9)
        assert (np.diff(shapes.aspect_ratio) >= 0).all()
        assert shapes.aspect_ratio[0] >= 1


def test_elongated_outlines_come_from_other_groups_too() -> None:
    bank = default_bank()
    own, more = (shapes_from_bank(bank, "spindle", elongated_from_others=limit) for limit in (None, 2.2))
    assert len(more.points) > len(own.points)
    added = len(more.points) - len(own.points)
    others = np.concatenate([shapes_from_bank(bank, name).aspect_ratio for name in ("columnar", "round")])
    assert added == (others >= 2.2).sum()


def test_nuclei_are_no_ellipses() -> None:
    # An ellipse of unit area with these moments has the area 4 pi sqrt(det) = 1; an outline with lobes has less
    # area than its moments say.
    _, _, covariance = polygon_moments(shapes_from_bank(default_bank(), "round").points)
    filled = 1 / (4 * np.pi * np.sqrt(np.linalg.det(covariance)))
    assert 0.8 < np.percentile(filled, 5) < np.median(filled) < 0.995


@pytest.mark.parametrize(("area_px", "aspect"), [(40.0, 1.0), (120.0, 2.0), (400.0, 4.0), (3000.0, 1.5)])
def test_drawn_area_aspect_ratio_and_direction(area_px: float, aspect: float) -> None:
    n = 60
    angle = np.linspace(0, np.pi, n, endpoint=False)
    shapes = shapes_from_bank(default_bank(), "columnar")
    rng = np.random.default_rng(1)
    polygons = shapes.polygons(rng, np.full(n, area_px), np.full(n, aspect), angle)
    measured = []
    for polygon, a in zip(polygons, angle, strict=True):
        canvas = Canvas.empty(256, 256)
        assert canvas.add(polygon, tuple(128 + rng.random(2)), float(a))
        nucleus = nuclei_of(canvas.labels)
        measured.append((nucleus.area_px[0], nucleus.aspect_ratio[0], np.cos(2 * (nucleus.angle[0] - a))))
    area, ratio, cosine = np.median(measured, axis=0)
    # The filled border is half a pixel up to 0.1 px: that is 2 * 0.1 / half axis, 6 % at the smallest (3.6 px).
    assert abs(area / area_px - 1) < 0.06
    # A circle of 40 px measures 1.1 by its pixels alone.
    assert abs(ratio / aspect - 1) < (0.12 if area_px < 100 else 0.05)
    if aspect >= 2:
        # 5 degrees.
        assert cosine > 0.985


def test_the_same_stream_draws_the_same_polygons() -> None:
    shapes: Shapes = shapes_from_bank(ellipse_bank((1, 1), (2, 1)), "ellipse")
    values = (np.full(3, 100.0), np.full(3, 2.0), np.zeros(3))
    first, second = (shapes.polygons(np.random.default_rng(5), *values) for _ in range(2))
    assert first.tobytes() == second.tobytes()

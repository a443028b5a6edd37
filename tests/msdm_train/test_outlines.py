from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from msdm_engine.errors import InputError
from msdm_engine.layouts.outlines import default_bank, load_bank, points_from_descriptors, polygon_moments
from msdm_train.outlines import (
    MIN_AREA_PX,
    descriptors_from_contour,
    fit_outline_bank,
    main,
    normalised,
    train_tiles,
    whole_contours,
)

DATA = Path(__file__).parents[3] / "shared" / "data" / "bbbc038_histology"


def ellipse(a: float, b: float, turn: float = 0.0, start: float = 0.0, n: int = 2000) -> np.ndarray:
    t = start + np.arange(n) / n * 2 * np.pi
    x, y = a * np.cos(t), b * np.sin(t)
    return np.stack([x * np.cos(turn) - y * np.sin(turn) + 50, x * np.sin(turn) + y * np.cos(turn) + 40], axis=1)


def map_with(*nuclei: tuple[int, int, int, int], side: int = 100) -> np.ndarray:
    """Filled ellipses (x, y, half width, half height)."""
    labels = np.zeros((side, side), np.uint16)
    for label, (x, y, a, b) in enumerate(nuclei, 1):
        cv2.ellipse(labels, (x, y), (a, b), 0, 0, 360, label, -1)
    return labels


def test_descriptors_of_a_circle() -> None:
    # Arc length and angle agree on a circle: a_1 = d_1 = radius, everything else zero.
    values = descriptors_from_contour(ellipse(20, 20))
    expected = np.zeros((8, 4))
    expected[0] = [20, 0, 0, 20]
    # A polygon of 2,000 sides differs from its circle by (pi / 2000)^2.
    np.testing.assert_allclose(values, expected, atol=1e-3)


def test_descriptors_rebuild_the_contour() -> None:
    contour = ellipse(25, 12, turn=0.7)
    rebuilt = points_from_descriptors(descriptors_from_contour(contour)[None], 200)[0] + contour.mean(axis=0)
    gaps = np.sqrt(((rebuilt[:, None] - contour) ** 2).sum(axis=2)).min(axis=1)
    # Eight harmonics of an ellipse run by arc length: the rest is well below a pixel.
    assert gaps.max() < 0.1


def test_short_waves_are_staircase() -> None:
    # 2 pi 3 = 19 px around: only harmonics up to 19 / 5 = 3.8 are longer than 5 px.
    values = descriptors_from_contour(ellipse(4, 2))
    assert np.abs(values[0]).max() > 0
    assert not values[4:].any()


@pytest.mark.parametrize(
    ("turn", "start", "size"), [(0.0, 0.0, 1.0), (0.9, 0.0, 1.0), (2.5, 2.0, 1.0), (-1.2, 4.0, 3.0)]
)
def test_normalised_forgets_place_start_turn_and_size(turn: float, start: float, size: float) -> None:
    values = normalised(descriptors_from_contour(ellipse(20 * size, 10 * size, turn, start)))
    area, _, covariance = polygon_moments(points_from_descriptors(values[None], 256))
    np.testing.assert_allclose(area, 1, rtol=1e-6)
    # Half axes sqrt(2 / pi) and sqrt(1 / (2 pi)); variances are a quarter of their squares.
    np.testing.assert_allclose(np.diag(covariance[0]), [1 / (2 * np.pi), 1 / (8 * np.pi)], rtol=1e-3)
    np.testing.assert_allclose(covariance[0, 0, 1], 0, atol=1e-4)
    np.testing.assert_allclose(values[0, 1:3], 0, atol=1e-6)


def test_which_nuclei_are_left_out() -> None:
    whole, border, small = (30, 30, 12, 7), (2, 70, 10, 8), (60, 70, 4, 3)
    labels = map_with(whole, border, small)
    labels[80:90, 30:32] = 4
    labels[80:90, 50:60] = 4  # two pieces
    labels[60:61, 70:95] = 5
    labels[60:90, 95:97] = 5  # an angle of two thin bars: far from its convex hull
    assert (labels == 3).sum() < MIN_AREA_PX < (labels == 5).sum()
    (contour,) = whole_contours(labels)
    # The contour runs an eighth of a pixel inside the border of the mask: 13 of each 25 and 15 px.
    np.testing.assert_allclose(np.ptp(contour, axis=0), [25 - 0.25, 15 - 0.25])


def test_bank_is_grouped_by_tag_and_limited() -> None:
    maps = [(map_with((25, 25, 12, 7), (70, 70, 9, 9)), "round"), (map_with((50, 50, 20, 6)), "columnar")]
    bank = fit_outline_bank(maps, licence="CC0", source="drawn")
    assert {name: values.shape for name, values in bank.coefficients.items()} == {
        "round": (2, 8, 4),
        "columnar": (1, 8, 4),
    }
    limited = fit_outline_bank(maps * 10, licence="CC0", source="drawn", max_per_architecture=5)
    assert [len(values) for values in limited.coefficients.values()] == [5, 5]


def test_no_nucleus_is_an_error() -> None:
    with pytest.raises(InputError, match="no usable nucleus"):
        fit_outline_bank([(np.zeros((50, 50), np.uint16), "round")], licence="", source="")


def write_pack(root: Path, rows: list[tuple[str, str]]) -> None:
    (root / "masks").mkdir()
    lines = ["id,split,architecture", *(f"{name},{split},round" for name, split in rows)]
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")


def test_only_train_tiles_are_opened(tmp_path: Path) -> None:
    write_pack(tmp_path, [("a", "train"), ("b", "val"), ("c", "test")])
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), map_with((30, 30, 12, 7)))
    # The masks of b and c do not exist, so opening them would fail.
    assert [tag for _, tag in train_tiles(tmp_path)] == ["round"]


def test_unreadable_packs_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no metadata\.csv"):
        list(train_tiles(tmp_path))
    write_pack(tmp_path, [("a", "train")])
    with pytest.raises(InputError, match=r"a\.png cannot be read"):
        list(train_tiles(tmp_path))
    (tmp_path / "metadata.csv").write_text("id,split\na,train\n")
    with pytest.raises(InputError, match="architecture"):
        list(train_tiles(tmp_path))


def test_command_writes_a_bank_that_loads(tmp_path: Path) -> None:
    write_pack(tmp_path, [("a", "train")])
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), map_with((30, 30, 12, 7)))
    out = tmp_path / "bank.json"
    result = CliRunner().invoke(main, ["--data", str(tmp_path), "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "round 1" in result.output
    assert load_bank(out).coefficients["round"].shape == (1, 8, 4)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the tile pack in ../shared/data")
def test_shipped_bank_is_the_fit_of_the_train_split() -> None:
    bank = fit_outline_bank(train_tiles(DATA), licence="", source="")
    for name, values in default_bank().coefficients.items():
        # float16 has 11 bits; coefficients are below 2 and most are near zero.
        np.testing.assert_allclose(values, bank.coefficients[name], rtol=2**-10, atol=1e-6)

from __future__ import annotations

import numpy as np
import pytest

from msdm_engine.errors import InputError
from msdm_engine.metrics.colour_difference import ciede2000, lab_from_rgb

#: Of table 1 of Sharma, Wu and Dalal 2005: L*, a*, b* of both colours, and their difference to four decimals. Chosen
#: for the branches: mean hue, hue difference across the cut, greys, the blue rotation, plain pairs.
PUBLISHED = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, 3.1571, -77.2803), (50.0, 0.0, -82.7485), 2.8615),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0009), 7.1792),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0011), 7.2195),
    ((50.0, -0.0010, 2.4900), (50.0, 0.0009, -2.4900), 4.8045),
    ((50.0, -0.0010, 2.4900), (50.0, 0.0011, -2.4900), 4.7461),
    ((50.0, 2.5, 0.0), (50.0, 0.0, -2.5), 4.3065),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((50.0, 2.5, 0.0), (61.0, -5.0, 29.0), 22.8977),
    ((50.0, 2.5, 0.0), (56.0, -27.0, -3.0), 31.9030),
    ((50.0, 2.5, 0.0), (58.0, 24.0, 15.0), 19.4535),
    ((50.0, 2.5, 0.0), (50.0, 3.1736, 0.5854), 1.0000),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((63.0109, -31.0961, -5.8663), (62.8187, -29.7946, -4.0864), 1.2630),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((90.9257, -0.5406, -0.9208), (88.6381, -0.8985, -0.7239), 1.5381),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("lab", "other", "expected"), PUBLISHED)
def test_published_pairs(lab: tuple[float, ...], other: tuple[float, ...], expected: float) -> None:
    # The table is rounded to four decimals.
    assert ciede2000(np.array(lab), np.array(other)) == pytest.approx(expected, abs=5.001e-5)
    assert ciede2000(np.array(other), np.array(lab)) == pytest.approx(expected, abs=5.001e-5)


def test_equal_colours_differ_by_nothing_and_all_others_by_more() -> None:
    rng = np.random.default_rng(0)
    lab = lab_from_rgb(rng.integers(0, 256, (200, 3)))
    np.testing.assert_array_equal(ciede2000(lab, lab), 0)
    table = ciede2000(lab[:, None], lab[None])
    np.testing.assert_allclose(table, table.T, rtol=1e-12, atol=1e-12)  # sums in another order
    assert (table[~np.eye(200, dtype=bool)] > 0).all()


def test_a_grey_difference_is_one_of_lightness() -> None:
    # Without chroma, equation 22 is |dL| / S_L with S_L = 1 + 0.015 (L - 50)^2 / sqrt(20 + (L - 50)^2): at a mean
    # lightness of 50, S_L = 1.
    assert ciede2000(np.array([48.0, 0, 0]), np.array([52.0, 0, 0])) == pytest.approx(4.0)


def test_lab_of_known_colours() -> None:
    # White and black by definition; the primaries' published values (Lindbloom, sRGB, D65) to two decimals.
    np.testing.assert_allclose(
        lab_from_rgb(np.array([[255, 255, 255], [0, 0, 0]])), [[100, 0, 0], [0, 0, 0]], atol=1e-9
    )
    known = {
        (255, 0, 0): (53.24, 80.09, 67.20),
        (0, 255, 0): (87.73, -86.18, 83.18),
        (0, 0, 255): (32.30, 79.19, -107.86),
    }
    for rgb, lab in known.items():
        np.testing.assert_allclose(lab_from_rgb(np.array(rgb)), lab, atol=0.02)  # they round XYZ too
    greys = lab_from_rgb(np.arange(256)[:, None].repeat(3, 1))
    np.testing.assert_allclose(greys[:, 1:], 0, atol=1e-9)
    assert (np.diff(greys[:, 0]) > 0).all()


@pytest.mark.parametrize("rgb", [np.zeros(4), np.array([0, 0, 256]), np.array([-1.0, 0, 0]), np.array([0, np.nan, 0])])
def test_what_is_no_colour_is_refused(rgb: np.ndarray) -> None:
    with pytest.raises(InputError, match="red, green, blue from 0 to 255"):
        lab_from_rgb(rgb)

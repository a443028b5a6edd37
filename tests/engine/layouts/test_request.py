from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from msdm_engine.errors import RequestError
from msdm_engine.layouts import LAYOUTS, LayoutRequest
from msdm_engine.layouts.request import KINDS, MAX_COVERAGE, RANGES

BASE: dict[str, Any] = {"kind": "columnar", "height_px": 256, "width_px": 256, "seed": 1}


def error_of(**options: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        LayoutRequest.from_options(**{**BASE, **options})
    return caught.value


def test_every_kind_is_registered() -> None:
    assert set(LAYOUTS) == set(KINDS)
    assert all(layout.summary for layout in LAYOUTS.values())


def test_unknown_layout_names_the_nearest() -> None:
    error = error_of(kind="colunar")
    assert "'colunar'" in error.what
    assert "did you mean 'columnar'" in str(error.note)


def test_unknown_option_names_the_nearest() -> None:
    error = error_of(areapx=100)
    assert "'areapx'" in error.what
    assert "did you mean 'area_px'" in str(error.note)


def test_missing_options_are_named() -> None:
    with pytest.raises(RequestError, match="height_px, width_px"):
        LayoutRequest.from_options(kind="round", seed=1)


@pytest.mark.parametrize("name", sorted(RANGES))
def test_out_of_range_names_value_and_range(name: str) -> None:
    low, high = RANGES[name]
    for value in (type(low)(low - 1), type(high)(high + 1)):
        error = error_of(**{name: value})
        assert name in error.what
        assert str(value) in error.what
        assert f"{low:g} to {high:g}" in str(error.note)


@pytest.mark.parametrize("value", [None, True, "256", 256.0, float("nan")])
def test_a_side_is_a_whole_number(value: object) -> None:
    assert "whole number" in str(error_of(height_px=value).note)


def test_nan_is_no_area() -> None:
    assert "area_px" in error_of(area_px=float("nan")).what


@pytest.mark.parametrize(
    ("kind", "option", "value"), [("round", "rows", 2), ("spindle", "stroma", 0.5), ("gland", "orientation_deg", 10)]
)
def test_an_option_of_other_kinds_is_refused(kind: str, option: str, value: float) -> None:
    error = error_of(kind=kind, **{option: value})
    assert f"'{kind}' has no option {option}" in error.what
    assert "columnar" in str(error.note)


def test_count_and_density_exclude_each_other() -> None:
    assert "both" in error_of(count=10, density_per_mpx=500).what


def test_more_nuclei_than_fit() -> None:
    error = error_of(kind="round", count=2000)
    assert "2000 nuclei" in error.what
    most = int(LayoutRequest("round", 256, 256, 1).count_at(MAX_COVERAGE["round"]))
    assert f"up to {most}" in str(error.note)
    LayoutRequest("round", 256, 256, 1, count=most)


def test_more_nuclei_than_labels() -> None:
    # 4096 x 4096 px at 5,000 a million pixels are 83,886 nuclei.
    error = error_of(height_px=4096, width_px=4096, area_px=30, density_per_mpx=5000)
    assert "83886" in error.what
    assert "65535" in str(error.note)


def test_a_nucleus_larger_than_the_picture() -> None:
    assert "512 px" in str(error_of(height_px=64, width_px=64, area_px=600).note)
    # 500 px at aspect ratio 8: sqrt(4 * 500 * 8 / pi) = 71 px long.
    assert "71 px long" in str(error_of(height_px=64, width_px=64, area_px=500, aspect_ratio=8).note)


def test_round_nuclei_are_not_elongated() -> None:
    assert "1 to 3" in str(error_of(kind="round", aspect_ratio=4).note)


def test_density_becomes_a_count() -> None:
    request = LayoutRequest("round", 500, 1000, 1, density_per_mpx=600)
    assert request.wanted == 300


def test_a_request_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LayoutRequest(**BASE).seed = 2  # type: ignore[misc]

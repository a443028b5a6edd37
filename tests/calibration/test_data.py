from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from msdm_calibration.data import CalibrationData
from msdm_engine.conditions.colour import colour_from_image
from msdm_engine.errors import InputError, RequestError
from msdm_train.data.pack import Pack


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> Path:
    """Changes header and tensors of a pack, as no writer of ours would."""
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["msdm"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    change(header, tensors)
    save_file(tensors, path, metadata={"msdm": json.dumps(header)})
    return path


def test_windows_are_those_of_the_pack_with_its_conditions(pack_path: Path) -> None:
    with CalibrationData(pack_path, 0) as data:
        windows = data.windows(6, 32, seed=3)
    pack = Pack(pack_path)
    for index, window in enumerate(windows):
        image, instances = pack.window(window.field, window.y, window.x, window.y + 32, window.x + 32)
        request = window.request
        assert (request.index, request.seed, request.height_px, request.width_px) == (index, 3, 32, 32)
        assert request.instances is not None and np.array_equal(request.instances, instances)
        assert request.colour == colour_from_image(image, instances)
        # The regions meet at column 48 of 96; a window lies in one of them.
        assert request.metadata.description == ("violet round nuclei" if window.x <= 16 else "violet nuclei")
        assert window.x <= 16 or window.x >= 48


def test_windows_are_spread_over_fields_and_test_is_not_among_them(pack_path: Path) -> None:
    with CalibrationData(pack_path, 0) as data:
        windows = data.windows(7, 32)
    counts = Counter(window.field for window in windows)
    assert set(counts) == {"train-a", "train-b", "val-a"}
    assert sorted(counts.values()) == [2, 2, 3]  # 7 = 2 + 2 + 3
    assert {window.field for window in windows[:3]} == set(counts)  # fields take turns
    assert len({(window.field, window.y, window.x) for window in windows}) == 7


def test_windows_are_a_function_of_seed_and_arguments(pack_path: Path) -> None:
    def places(seed: int) -> list[tuple[str, int, int]]:
        with CalibrationData(pack_path, 0) as data:
            return [(window.field, window.y, window.x) for window in data.windows(6, 32, seed)]

    assert places(1) == places(1)
    assert places(1) != places(2)


def test_one_split_alone(pack_path: Path) -> None:
    with CalibrationData(pack_path, 0) as data:
        assert {window.field for window in data.windows(2, 32, splits=("val",))} == {"val-a"}


@pytest.mark.parametrize("splits", [("test",), ("train", "test"), ("holdout",)])
def test_another_split_is_refused_by_name(pack_path: Path, splits: tuple[str, ...]) -> None:
    with CalibrationData(pack_path, 0) as data, pytest.raises(RequestError, match=splits[-1]):
        data.windows(2, 32, splits=splits)


@pytest.mark.parametrize(("count", "side_px"), [(0, 32), (100_001, 32), (2, 8), (2, 5000)])
def test_numbers_out_of_range_are_refused(pack_path: Path, count: int, side_px: int) -> None:
    with CalibrationData(pack_path, 0) as data, pytest.raises(RequestError, match="windows"):
        data.windows(count, side_px)


def test_a_field_too_small_is_named(make_pack: Callable[..., Path], field: Callable[..., Any]) -> None:
    path = make_pack(field("large", "train"), field("small", "train", side_px=48))
    with CalibrationData(path, 0) as data, pytest.raises(InputError, match=r"field small .* 32 px"):
        data.windows(4, 32)  # its regions are 24 px wide


def test_a_field_without_nuclei_is_named(make_pack: Callable[..., Path], field: Callable[..., Any]) -> None:
    path = make_pack(field("full", "train"), field("empty", "train", nuclei=False))
    with CalibrationData(path, 0) as data, pytest.raises(InputError, match=r"field empty .* no nuclei"):
        data.windows(4, 32)


def test_too_few_windows_are_refused(make_pack: Callable[..., Path], field: Callable[..., Any]) -> None:
    # Regions of 96 x 48 px have (96 - 48 + 1) x 1 places for 48 px each, so 98 in the field.
    path = make_pack(field("one", "train"))
    with CalibrationData(path, 0) as data:
        assert len(data.windows(98, 48)) == 98
        with pytest.raises(InputError, match=r"field one .* 98 different windows"):
            data.windows(99, 48)


def test_values_that_are_not_finite_are_refused_with_their_window(pack_path: Path) -> None:
    def poison(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        tensors["image/val-a"] = np.full((96, 96, 3), np.nan, np.float32)

    with (
        CalibrationData(rewrite(pack_path, poison), 0) as data,
        pytest.raises(InputError, match=r"field val-a .* window at row \d+, column \d+: 3072 values are not finite"),
    ):
        data.windows(3, 32)  # 32 x 32 x 3


def test_another_type_is_refused(pack_path: Path) -> None:
    def widen(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        tensors["instances/val-a"] = tensors["instances/val-a"].astype(np.int64)

    with CalibrationData(rewrite(pack_path, widen), 0) as data, pytest.raises(InputError, match=r"val-a .* int64"):
        data.windows(3, 32)


def test_a_size_that_the_header_does_not_say_is_refused(pack_path: Path) -> None:
    def cut(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        tensors["image/val-a"] = np.ascontiguousarray(tensors["image/val-a"][:90])

    with CalibrationData(rewrite(pack_path, cut), 0) as data, pytest.raises(InputError, match=r"val-a .* \(90, 96, 3"):
        data.windows(3, 32)


def test_another_number_of_classes_is_refused(pack_path: Path) -> None:
    with pytest.raises(InputError, match="no nucleus classes, the bundle 5"):
        CalibrationData(pack_path, 5)


@pytest.mark.parametrize("key", ["regions", "height_px", "split"])
def test_a_malformed_header_is_refused(pack_path: Path, key: str) -> None:
    def drop(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        del header["fields"][0][key]

    with pytest.raises(InputError, match="malformed header"):
        CalibrationData(rewrite(pack_path, drop), 0)


def test_a_region_outside_its_field_is_refused(pack_path: Path) -> None:
    def stretch(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        header["fields"][0]["regions"][0]["y1"] = 97

    with pytest.raises(InputError, match="malformed header"):
        CalibrationData(rewrite(pack_path, stretch), 0)


def test_a_split_without_fields_is_refused(make_pack: Callable[..., Path], field: Callable[..., Any]) -> None:
    path = make_pack(field("a", "train"))
    with CalibrationData(path, 0) as data, pytest.raises(InputError, match="no field in val"):
        data.windows(1, 32, splits=("val",))


def test_no_pack_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("nothing")
    for path in (tmp_path / "text", tmp_path / "absent"):
        with pytest.raises(InputError, match="not a packed data set"):
            CalibrationData(path, 0)


def test_an_unknown_format_is_refused(pack_path: Path) -> None:
    def age(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        header["format"] = 99

    with pytest.raises(InputError, match="format version"):
        CalibrationData(rewrite(pack_path, age), 0)

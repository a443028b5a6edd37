from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msdm_engine.conditions.decode import instances_from_maps
from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.errors import InputError, RequestError
from msdm_engine.metrics.segmentation import aggregated_jaccard, panoptic_quality

REAL = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "bbbc038_histology"


def ellipses(*shapes: tuple[int, int, int, int, int], size: int = 64) -> NDArray[np.int32]:
    """Filled ellipses (centre x, y, half axes, angle in degrees), numbered from 1; later ones cover earlier ones."""
    instances = np.zeros((size, size), np.int32)
    for label, (x, y, a, b, angle) in enumerate(shapes, start=1):
        cv2.ellipse(instances, (x, y), (a, b), angle, 0, 360, label, -1)
    return instances


def in_raster_order(instances: NDArray[np.integer]) -> NDArray[np.integer]:
    """Numbered in the order of the first pixel, as the decoder promises."""
    renumbered = np.zeros_like(instances)
    for number, label in enumerate(dict.fromkeys(instances[instances > 0].tolist()), start=1):
        renumbered[instances == label] = number
    return renumbered


RECTANGLES = np.kron(np.array([[1, 2, 3], [4, 5, 6]]), np.ones((9, 12), np.int64))  # six, edge to edge
PALISADE = ellipses(*((8 + 9 * i, 30, 16, 4, 90) for i in range(6)))  # upright and touching along their sides


@pytest.mark.parametrize(
    "instances",
    [
        RECTANGLES,
        ellipses((20, 32, 12, 12, 0), (44, 32, 12, 12, 0)),
        ellipses((22, 22, 16, 6, 45), (32, 32, 16, 6, 45), (42, 42, 16, 6, 45)),
        ellipses((0, 20, 10, 7, 0), (63, 40, 9, 14, 0), (30, 63, 12, 5, 0)),  # cut by three borders
        ellipses((20, 20, 5, 5, 0), (45, 20, 7, 3, 30), (30, 50, 15, 6, 150)),  # apart
    ],
    ids=["rectangles", "discs", "slanted", "border", "apart"],
)
def test_exact_maps_give_the_nuclei_back(instances: NDArray[np.int32]) -> None:
    decoded = instances_from_maps(maps_from_instances(instances))
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, in_raster_order(instances))


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
def test_palisading_nuclei_stay_apart_under_noise(noise: float) -> None:
    maps = maps_from_instances(PALISADE)
    maps += np.float32(noise) * np.random.default_rng(0).standard_normal(maps.shape).astype(np.float32)
    decoded = instances_from_maps(maps)
    quality = panoptic_quality(PALISADE, decoded)
    assert quality.dq == 1
    # A nucleus of about 200 pixels with one border pixel in fifty on the wrong side keeps an IoU above 0.95.
    assert quality.sq > 0.95


def test_blurred_maps_keep_the_count() -> None:
    maps = np.stack([cv2.GaussianBlur(values, (0, 0), 1.0) for values in maps_from_instances(PALISADE)])
    quality = panoptic_quality(PALISADE, instances_from_maps(maps))
    assert (quality.false_positives, quality.false_negatives) == (0, 0)


def test_small_objects_are_removed_by_area() -> None:
    instances = np.zeros((20, 30), np.int32)
    instances[2:5, 2:5] = 1  # 9 pixels
    instances[10:12, 10:15] = 2  # 10 pixels
    maps = maps_from_instances(instances)
    np.testing.assert_array_equal(instances_from_maps(maps), instances == 2)
    np.testing.assert_array_equal(instances_from_maps(maps, min_area_px=9), instances)
    assert not instances_from_maps(maps, min_area_px=11).any()


def test_with_min_area_one_isolated_pixels_and_lines_are_nuclei() -> None:
    instances = np.zeros((12, 12), np.int32)
    instances[1, 1], instances[4, 2:11], instances[6:11, 8], instances[8:10, 1:3] = 1, 2, 3, 4
    np.testing.assert_array_equal(instances_from_maps(maps_from_instances(instances), min_area_px=1), instances)


def test_nucleus_in_two_pieces_comes_back_as_two() -> None:
    instances = np.zeros((10, 30), np.int32)
    instances[2:8, 2:10] = instances[2:8, 20:28] = 1
    decoded = instances_from_maps(maps_from_instances(instances))
    assert (decoded[2:8, 2:10] == 1).all() and (decoded[2:8, 20:28] == 2).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_dtype_does_not_matter(dtype: type[np.floating]) -> None:
    maps = maps_from_instances(RECTANGLES)
    np.testing.assert_array_equal(instances_from_maps(maps.astype(dtype)), instances_from_maps(maps))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (33, 17)])
@pytest.mark.parametrize("seed", range(3))
def test_any_values_give_a_legal_instance_map(shape: tuple[int, int], seed: int) -> None:
    maps = 2 * np.random.default_rng(seed).standard_normal((3, *shape)).astype(np.float32)
    decoded = instances_from_maps(maps, min_area_px=1)
    # With the smallest area of one pixel nothing is removed, so the foreground is kept to the pixel.
    np.testing.assert_array_equal(decoded > 0, maps[0] > 0)
    labels, first = np.unique(decoded[decoded > 0], return_index=True)
    np.testing.assert_array_equal(labels, np.arange(1, labels.size + 1))
    assert (np.diff(first) > 0).all()


def test_same_maps_same_instances_with_any_number_of_threads() -> None:
    maps = maps_from_instances(ellipses(*((8 + 12 * (i % 5), 8 + 12 * (i // 5), 7, 6, 20 * i) for i in range(25))))
    maps += np.float32(0.3) * np.random.default_rng(1).standard_normal(maps.shape).astype(np.float32)
    threads = cv2.getNumThreads()
    try:
        decoded = []
        for count in (1, 4):
            cv2.setNumThreads(count)
            decoded.append(instances_from_maps(maps))
    finally:
        cv2.setNumThreads(threads)
    np.testing.assert_array_equal(decoded[0], decoded[1])


def test_threshold_moves_the_outline() -> None:
    maps = maps_from_instances(RECTANGLES)
    maps[0, :, 0] = 0.4
    assert instances_from_maps(maps)[:, 0].all()
    assert not instances_from_maps(maps, foreground_threshold=0.5)[:, 0].any()


def test_no_foreground_no_nuclei() -> None:
    assert not instances_from_maps(np.full((3, 8, 8), -1, np.float32)).any()


@pytest.mark.parametrize(
    ("maps", "what"),
    [
        (np.zeros((4, 8, 8), np.float32), r"shape \[4, 8, 8\]"),
        (np.zeros((8, 8), np.float32), r"shape \[8, 8\]"),
        (np.zeros((3, 8, 8), np.int32), "dtype int32"),
        (np.full((3, 2, 2), np.nan, np.float32), "12 values that are not finite"),
    ],
)
def test_refuses_what_are_no_maps(maps: NDArray[np.floating], what: str) -> None:
    with pytest.raises(InputError, match=what):
        instances_from_maps(maps)


def test_refuses_a_smallest_area_below_one() -> None:
    with pytest.raises(RequestError, match="min_area_px is 0"):
        instances_from_maps(np.zeros((3, 8, 8), np.float32), min_area_px=0)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real masks in ../shared/data/bbbc038_histology are absent")
def test_round_trip_of_real_masks() -> None:
    with (REAL / "metadata.csv").open(newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file) if row["split"] == "val"]
    aji, pq = [], []
    for name in ids:
        instances = np.asarray(cv2.imread(str(REAL / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED), np.int32)
        decoded = instances_from_maps(maps_from_instances(instances))
        aji.append(aggregated_jaccard(instances, decoded).value)
        pq.append(panoptic_quality(instances, decoded).pq)
    # What decoding may cost at most, so that generated masks are judged by their own faults; see benchmarks.
    assert np.mean(aji) > 0.99 and np.mean(pq) > 0.99

"""Morphology codec: time of maps and of their decoding, and the round trip masks -> maps -> masks on real masks.

    python -m benchmarks.conditions     # prints tables, writes benchmarks/results/conditions.json

Times: a drawn picture of 1024 x 1024 px with 2,000 nuclei, and a crop of 64 x 64 px as in the training loop.
Round trip: every real mask, by split; AJI and PQ of the decoded maps are the ceiling of what a generated mask can
score. Beside the exact maps: maps with Gaussian noise or blurred (standard deviations in map units and in pixels),
as a generator may hand them over. The decoder's constants were chosen on train and val, never on test.
For comparison the plain recipe that the decoder replaces: Sobel gradients, threshold, cv2.watershed, at the
best of four settings tried on train and val.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from benchmarks.timer import environment, measure, write_json
from numpy.typing import NDArray

from msdm_engine.conditions.decode import instances_from_maps
from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.metrics.segmentation import aggregated_jaccard, dice, panoptic_quality

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "bbbc038_histology"
RESULT = ROOT / "benchmarks" / "results" / "conditions.json"

Instances = NDArray[np.int32]
Maps = NDArray[np.float32]


def drawn_nuclei(size: int = 1024, across: int = 40, down: int = 50) -> Instances:
    """``across`` x ``down`` ellipses, one in each cell of a grid, so that none covers another but many touch."""
    rng = np.random.default_rng(0)
    instances = np.zeros((size, size), np.int32)
    for label in range(across * down):
        row, column = divmod(label, across)
        centre = (int((column + 0.5) * size / across), int((row + 0.5) * size / down))
        axes = (int(rng.integers(8, 13)), int(rng.integers(7, 11)))
        cell = np.zeros_like(instances, np.uint8)
        cv2.ellipse(cell, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        instances[(cell > 0) & (instances == 0)] = label + 1
    return instances


def watershed(maps: Maps) -> Instances:
    """HoVer-Net's recipe in its plain form: Sobel 5 x 5 of the HV maps, markers below 0.5, flooded by OpenCV."""
    foreground = maps[0] > 0
    falls = [cv2.Sobel(maps[1], cv2.CV_32F, 1, 0, ksize=5), cv2.Sobel(maps[2], cv2.CV_32F, 0, 1, ksize=5)]
    energy = np.max([1 - (fall - fall.min()) / max(float(np.ptp(fall)), 1e-6) for fall in falls], axis=0)
    energy[~foreground] = 0
    inside = (foreground & (energy < 0.5)).astype(np.uint8)
    markers, stats = cv2.connectedComponentsWithStats(inside, connectivity=4)[1:3]
    markers[stats[markers, cv2.CC_STAT_AREA] < 8] = 0
    seeds = np.where(foreground & (markers == 0), 0, markers + 1).astype(np.int32)
    blurred = cv2.GaussianBlur(energy, (3, 3), 0)
    flooded = cv2.watershed(cv2.merge([(blurred * 255).astype(np.uint8)] * 3), seeds)
    labels = np.where(foreground, np.maximum(flooded - 1, 0), 0).astype(np.float32)
    for _ in range(3):  # OpenCV leaves lines between basins; nuclei have none
        grown = cv2.dilate(labels, np.ones((3, 3), np.uint8))
        labels = np.where(foreground & (labels == 0), grown, labels)
    return labels.astype(np.int32)


DECODERS = {"ours": instances_from_maps, "plain watershed": watershed}


def disturbed(maps: Maps, seed: int) -> Iterator[tuple[str, Maps]]:
    """The exact maps, and what a generator may make of them."""
    noise = np.random.default_rng(seed).standard_normal(maps.shape).astype(np.float32)
    yield "exact", maps
    yield "noise 0.1", maps + np.float32(0.1) * noise
    yield "noise 0.2", maps + np.float32(0.2) * noise
    for sigma_px in (1.0, 2.0):
        yield f"blur {sigma_px:g} px", np.stack([cv2.GaussianBlur(values, (0, 0), sigma_px) for values in maps])


def real_masks() -> Iterator[tuple[str, str, Instances]]:
    """Split, tile and instance map of each real tile."""
    with (DATA / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        labels = cv2.imread(str(DATA / "masks" / f"{row['id']}.png"), cv2.IMREAD_UNCHANGED)
        if labels is None:
            raise click.ClickException(f"mask of tile {row['id']} cannot be read")
        yield row["split"], row["id"], labels.astype(np.int32)


def round_trip() -> list[dict[str, Any]]:
    """AJI, PQ and Dice by decoder, disturbance and split; nuclei missed and invented are summed over tiles."""
    scores: dict[tuple[str, str, str], list[tuple[float, ...]]] = {}
    with click.progressbar(list(enumerate(real_masks())), label="round trip", show_pos=True) as tiles:
        for seed, (split, _, true) in tiles:
            for disturbance, maps in disturbed(maps_from_instances(true), seed):
                for decoder, decode in DECODERS.items():
                    decoded = decode(maps)
                    aji, pq = aggregated_jaccard(true, decoded), panoptic_quality(true, decoded)
                    score = (aji.value, pq.pq, dice(true, decoded).value, pq.false_negatives, pq.false_positives)
                    scores.setdefault((decoder, disturbance, split), []).append(score)
    rows = []
    for (decoder, disturbance, split), values in scores.items():
        table = np.array(values)
        row: dict[str, Any] = {"decoder": decoder, "maps": disturbance, "split": split, "tiles": len(table)}
        for at, name in enumerate(("aji", "pq", "dice")):
            row |= {f"{name}_mean": round(table[:, at].mean(), 4), f"{name}_min": round(table[:, at].min(), 4)}
        rows.append(row | {"missed": int(table[:, 3].sum()), "invented": int(table[:, 4].sum())})
    return rows


def times() -> list[dict[str, Any]]:
    """Times of both directions; the outputs are checked before a number is handed out."""
    large = drawn_nuclei()
    crop, tile = large[:64, :64], large[:256, :320]
    maps = {name: maps_from_instances(labels) for name, labels in (("large", large), ("tile", tile), ("crop", crop))}
    nuclei = np.unique(large).size - 1
    aji = aggregated_jaccard(large, instances_from_maps(maps["large"])).value
    if nuclei != 2000 or np.abs(maps["large"]).max() != 1:
        raise click.ClickException(f"{nuclei} nuclei, largest map value {np.abs(maps['large']).max()}: not as drawn")
    if aji < 0.97:
        raise click.ClickException(f"the drawn picture decodes with an AJI of {aji:.3f} only")
    slow = measure(
        {
            "maps_from_instances, 1024 x 1024, 2000 nuclei": lambda: maps_from_instances(large),
            "instances_from_maps, 1024 x 1024, 2000 nuclei": lambda: instances_from_maps(maps["large"]),
            "plain watershed, 1024 x 1024, 2000 nuclei": lambda: watershed(maps["large"]),
        }
    )
    fast = measure(
        {
            "maps_from_instances, 64 x 64": lambda: maps_from_instances(crop),
            "instances_from_maps, 64 x 64": lambda: instances_from_maps(maps["crop"]),
            "maps_from_instances, 256 x 320": lambda: maps_from_instances(tile),
            "instances_from_maps, 256 x 320": lambda: instances_from_maps(maps["tile"]),
        },
        repeats=101,
    )
    for timing in (*slow.values(), *fast.values()):
        click.echo(str(timing))
    return [timing.as_dict() for timing in (*slow.values(), *fast.values())]


def main() -> None:
    """Measure, print and write."""
    measured = times()
    rows = round_trip() if DATA.is_dir() else []
    if not rows:
        click.echo("round trip left out: the real masks in ../shared/data/bbbc038_histology are absent")
    for row in rows:
        click.echo("  ".join(f"{key} {value}" for key, value in row.items()))
    document = {
        "command": "python -m benchmarks.conditions",
        "how": "times: warm-up, then functions in turns, median and quartiles; round trip: mean and minimum over tiles",
        "environment": environment("numpy", "opencv-python-headless"),
        "times": measured,
        "round_trip": rows,
    }
    write_json(RESULT, document)
    click.echo(f"wrote {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

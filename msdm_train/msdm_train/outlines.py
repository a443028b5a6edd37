"""Fits the bank of nuclear outlines that the layouts draw from: instance maps -> elliptic Fourier descriptors.

Kuhl & Giardina, *Elliptic Fourier features of a closed contour*, Computer Graphics and Image Processing 18
(1982) 236-258: equations 1-6 for the descriptors, section 3 for starting point and rotation. Size is normalised
by area instead of by the long half axis, as layouts ask for areas.

    python -m msdm_train.outlines --data DATA --out engine/msdm_engine/layouts/outlines.json
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import InputError
from msdm_engine.layouts.outlines import OutlineBank, points_from_descriptors, polygon_moments

#: Smaller nuclei are mostly pixel staircase, which would be magnified when the outline is drawn larger.
MIN_AREA_PX = 60
HARMONICS = 8
MAX_PER_ARCHITECTURE = 600

#: Contours are traced on nuclei magnified this much: OpenCV traces through the centres of the border pixels,
#: half a pixel inside the nucleus, which is then an eighth.
MAGNIFICATION = 4

#: Area over convex-hull area. Below this are fragments and merged annotations rather than nuclei.
MIN_SOLIDITY = 0.82

#: A harmonic of shorter wavelength than this along the contour (in pixels of the mask) is staircase.
MIN_WAVELENGTH_PX = 5.0


def fit_outline_bank(
    instance_maps_with_tags: Iterable[tuple[NDArray[np.integer], str]],
    *,
    licence: str,
    source: str,
    harmonics: int = HARMONICS,
    max_per_architecture: int = MAX_PER_ARCHITECTURE,
) -> OutlineBank:
    """The bank of all whole nuclei of some instance maps.

    Left out are nuclei at the map's border, under MIN_AREA_PX, in several pieces, or of low solidity. Where an
    architecture has more than the maximum, an evenly spaced subset in reading order is kept.

    Args:
        instance_maps_with_tags: pairs of an [H, W] instance map and its architecture tag.
        licence, source: of the masks; they travel inside the bank.

    Raises:
        InputError: no map holds a nucleus that can be used.
    """
    found: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for labels, tag in instance_maps_with_tags:
        for contour in whole_contours(labels):
            found[tag].append(normalised(descriptors_from_contour(contour, harmonics)))
    if not found:
        raise InputError(
            "no usable nucleus in the instance maps",
            note=f"needed: whole nuclei of at least {MIN_AREA_PX} px that do not touch the border",
        )
    groups = {tag: _evenly(np.stack(items), max_per_architecture) for tag, items in found.items()}
    return OutlineBank({tag: values.astype(np.float32) for tag, values in groups.items()}, licence, source)


def _evenly(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    if len(values) <= count:
        return values
    return values[np.linspace(0, len(values) - 1, count).round().astype(int)]


def whole_contours(labels: NDArray[np.integer]) -> Iterator[NDArray[np.float64]]:
    """Closed contours [v, 2] float64 (x, y) in pixels of the nuclei that pass the rules of the bank."""
    border = set(np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])).tolist())
    for label in np.unique(labels).tolist():
        if label == 0 or label in border:
            continue
        ys, xs = np.nonzero(labels == label)
        if len(ys) < MIN_AREA_PX:
            continue
        mask = np.zeros((np.ptp(ys) + 3, np.ptp(xs) + 3), np.uint8)
        mask[ys - ys.min() + 1, xs - xs.min() + 1] = 1
        large = cv2.resize(mask, None, fx=MAGNIFICATION, fy=MAGNIFICATION, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if len(contours) != 1:
            continue
        area, hull = cv2.contourArea(contours[0]), cv2.contourArea(cv2.convexHull(contours[0]))
        if area >= MIN_SOLIDITY * hull:
            yield contours[0][:, 0].astype(np.float64) / MAGNIFICATION


def descriptors_from_contour(contour: NDArray[np.float64], harmonics: int = HARMONICS) -> NDArray[np.float64]:
    """[v, 2] closed contour -> [harmonics, 4] descriptors (a, b, c, d), Kuhl & Giardina equations 1-6.

    Harmonics shorter than MIN_WAVELENGTH_PX along the contour are zero.
    """
    step = np.diff(contour, axis=0, append=contour[:1])
    length = np.hypot(step[:, 0], step[:, 1])
    step, length = step[length > 0], length[length > 0]
    t = np.concatenate([[0.0], np.cumsum(length)])
    total = t[-1]
    order = np.arange(1, harmonics + 1)
    phase = 2 * np.pi * np.outer(order, t / total)
    waves = np.stack([np.diff(np.cos(phase), axis=1), np.diff(np.sin(phase), axis=1)], axis=2)
    values = (
        np.einsum("vk,hvw->hkw", step / length[:, None], waves) * (total / (2 * np.pi**2 * order**2))[:, None, None]
    )
    values[total / order < MIN_WAVELENGTH_PX] = 0
    return values.reshape(harmonics, 4)


def normalised(descriptors: NDArray[np.float64]) -> NDArray[np.float64]:
    """[harmonics, 4] -> the same outline started and rotated to the long axis of its first ellipse, with unit area."""
    a, b, c, d = descriptors[0]
    start = 0.5 * np.arctan2(2 * (a * b + c * d), a * a + c * c - b * b - d * d)
    turn = start * np.arange(1, len(descriptors) + 1)
    cos, sin = np.cos(turn), np.sin(turn)
    shift = np.stack([cos, -sin, sin, cos], axis=1).reshape(-1, 2, 2)
    values = descriptors.reshape(-1, 2, 2) @ shift
    psi = np.arctan2(values[0, 1, 0], values[0, 0, 0])
    rotation = np.array([[np.cos(psi), np.sin(psi)], [-np.sin(psi), np.cos(psi)]])
    values = (rotation @ values).reshape(1, -1, 4)
    area, _, _ = polygon_moments(points_from_descriptors(values, 256))
    return values[0] / np.sqrt(area[0])


def train_tiles(root: Path) -> Iterator[tuple[NDArray[np.integer], str]]:
    """Instance map and architecture of the tiles of a tile pack whose split is train; no other mask is opened.

    Raises:
        InputError: the table or a mask cannot be read, or the table lacks a column.
    """
    table = root / "metadata.csv"
    if not table.is_file():
        raise InputError(f"{root} has no metadata.csv", note="needed columns: id, split, architecture")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    missing = {"id", "split", "architecture"} - set(rows[0] if rows else ())
    if missing:
        raise InputError(f"{table} lacks the column(s) {', '.join(sorted(missing))}")
    for row in rows:
        if row["split"] == "train":
            path = root / "masks" / f"{row['id']}.png"
            labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if labels is None:
                raise InputError(f"{path} cannot be read as an image")
            yield labels.astype(np.int32), row["architecture"]


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Tile pack with metadata.csv and masks/.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
@click.option("--licence", default="CC0-1.0", show_default=True)
@click.option(
    "--source", default="BBBC038v1 stage-1 train, corrected copy; train split of 13 fields", show_default=True
)
def main(data: Path, out: Path, licence: str, source: str) -> None:
    """Fits the outline bank to the train split of a tile pack."""
    bank = fit_outline_bank(train_tiles(data), licence=licence, source=source)
    out.write_text(bank.to_json(), encoding="utf-8")
    counts = ", ".join(f"{name} {len(values)}" for name, values in sorted(bank.coefficients.items()))
    click.echo(f"{out}: {counts} outlines, {out.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()

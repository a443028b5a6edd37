from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine.output.png import png_bytes

FOREGROUND, BACKGROUND = (100, 50, 180), (210, 190, 220)
HEADER = {
    "notice": "synthetic",
    "bundle": {"name": "tiny", "sha256": "0123456789abcdef" * 4},
    "data": {"name": "drawn", "licence": "CC0-1.0", "source": "squares"},
    "engine": {"backend": "onnxruntime"},
    "sampling": {"steps": 4},
}
WriteSet = Callable[..., Path]


def squares(sides: list[int], size: int = 32) -> np.ndarray:
    """Squares of these sides on the diagonal, one pixel apart, from (1, 1): none touches the border."""
    labels = np.zeros((size, size), np.uint16)
    corner = 1
    for label, side in enumerate(sides, 1):
        labels[corner : corner + side, corner : corner + side] = label
        corner += side + 1
    return labels


def record_of(index: int, **changes: Any) -> dict[str, Any]:
    """A line of a manifest for a 32 x 32 pair."""
    region = {"foreground": FOREGROUND, "background": BACKGROUND}
    record: dict[str, Any] = {
        "index": index,
        "seed": 7,
        "height_px": 32,
        "width_px": 32,
        "nuclei": 1,
        "morphology": "layout round",
        "colour": {name: {"mean": list(mean), "std": [0.0, 0.0, 0.0]} for name, mean in region.items()},
        "metadata": {"assay": "", "indication": "", "description": "violet"},
        "image": f"images/{index:06d}.png",
        "image_sha256": "0" * 64,
        "mask": f"masks/{index:06d}.png",
        "mask_sha256": "0" * 64,
    }
    return record | changes


@pytest.fixture
def write_set(tmp_path: Path) -> WriteSet:
    """Writes a set: for each pair the sides of its squares and what its manifest line says otherwise."""

    def write(*pairs: tuple[list[int], dict[str, Any]], header: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / "set"
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True)
        lines = []
        for index, (sides, changes) in enumerate(pairs):
            record = record_of(index, nuclei=len(sides)) | changes
            labels = squares(sides, record["height_px"])
            image = np.where((labels > 0)[..., None], FOREGROUND, BACKGROUND).astype(np.uint8)
            (folder / f"images/{index:06d}.png").write_bytes(png_bytes(image))
            (folder / f"masks/{index:06d}.png").write_bytes(png_bytes(labels))
            lines.append(json.dumps(record) + "\n")
        (folder / "manifest.jsonl").write_text("".join(lines))
        (folder / "set.json").write_text(json.dumps(HEADER if header is None else header))
        return folder

    return write

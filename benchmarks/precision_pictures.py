"""What FP16 does to finished pictures: the same pairs in both precisions, and how well each follows its mask.

    python -m benchmarks.precision_pictures [BUNDLE] --data PACK --evaluator SEGMENTER

Adds FP16 graphs to a copy of the bundle, generates the pairs of ``--windows`` val windows from the same noise in
float32 and in FP16 on ONNX Runtime's CPU, and scores both with the evaluator. Writes the JSON
``benchmarks/results/precision_pictures.json`` and ``docs/images/precision.png``: float32 over FP16, generated only.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from benchmarks.timer import environment, write_json

from msdm_engine.bundle.reader import Bundle, reference_bundle
from msdm_engine.engine import Engine
from msdm_engine.output.png import png_bytes, write_atomically
from msdm_engine.output.records import NOTICE
from msdm_export.precision.variants import add_precision
from msdm_train.data.crops import request_of, windows
from msdm_train.data.pack import Pack
from msdm_train.evaluation.generate import evenly
from msdm_train.evaluation.networks import open_evaluator
from msdm_train.segmentation.scoring import score_masks

ROOT = Path(__file__).parents[1]
RESULT, PICTURE = ROOT / "benchmarks/results/precision_pictures.json", ROOT / "docs/images/precision.png"
PRECISIONS = ("float32", "fp16")
SIDE_PX, SHOWN = 128, 8
PATH = click.Path(path_type=Path)


def measure(bundle: Path, pack: Pack, evaluator: Path, count: int) -> tuple[dict[str, Any], list[list[np.ndarray]]]:
    """The JSON's measurements, and the pictures of each precision."""
    crops = windows(pack, "val", SIDE_PX)
    crops = [crops[i] for i in evenly(len(crops), count)]
    requests = [request_of(crop, index, seed=0) for index, crop in enumerate(crops)]
    opened = Bundle.open(bundle)
    segment = open_evaluator(evaluator, pack, "val", opened.manifest)
    pictures, scores = [], {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "bundle"
        shutil.copytree(bundle, copy)
        add_precision(copy, "fp16", pack=pack.path)
        for precision in PRECISIONS:
            click.echo(f"sampling in {precision}", err=True)
            with Engine.open(copy, precision=precision) as engine:
                made = [pair.image for pair in engine.sample(requests, critic=False)]
            found = score_masks([crop.instances for crop in crops], segment(made))
            scores[precision] = {score: found.pooled(score) for score in ("dice", "aji", "pq")}
            pictures.append(made)
    difference = np.abs(np.stack(pictures[0]).astype(int) - np.stack(pictures[1]).astype(int))
    document = {
        "bundle": {"name": opened.manifest.name, "sha256": opened.sha256},
        "protocol": f"{len(crops)} pairs of {SIDE_PX} px under the conditions of val windows, the same noise in both "
        "precisions, default sampling, ONNX Runtime on the CPU; pooled scores of the evaluator against the masks",
        "evaluator": segment.identity,
        "scores": scores,
        "difference_points": {s: 100 * (scores["fp16"][s] - scores["float32"][s]) for s in scores["fp16"]},
        "pixels": {
            "mean_abs": float(difference.mean()),
            "p999_abs": float(np.percentile(difference, 99.9)),
            "max_abs": int(difference.max()),
            "unit": "of 255",
        },
    }
    return document, pictures


def sheet(pictures: list[list[np.ndarray]]) -> np.ndarray:
    """Float32 in the upper row, FP16 in the lower one."""
    picked = evenly(len(pictures[0]), SHOWN)
    return np.concatenate([np.concatenate([row[i] for i in picked], 1) for row in pictures])


@click.command()
@click.argument("bundle", type=PATH, required=False)
@click.option("--data", "pack", type=PATH, required=True, help="packed data set: conditions of its val windows")
@click.option("--evaluator", type=PATH, required=True, help="folder of a segmenter")
@click.option("--windows", "count", type=int, default=24, show_default=True)
def main(bundle: Path | None, pack: Path, evaluator: Path, count: int) -> None:
    """Measure, then write JSON and picture."""
    document, pictures = measure(bundle or reference_bundle(), Pack(pack), evaluator, count)
    document["environment"] = environment("numpy", "onnxruntime", "torch")
    write_json(RESULT, document)
    write_atomically(PICTURE, png_bytes(sheet(pictures), {"Comment": NOTICE}))
    click.echo(document["difference_points"])


if __name__ == "__main__":
    main()

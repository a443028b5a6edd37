"""INT8 and FP8 against float32: pictures, trajectories, fidelity, distance to real, speed; naive min-max beside ours.

    python -m benchmarks.quantization [BUNDLE] --data PACK --evaluator SEGMENTER

Adds FP16, INT8 and FP8 graphs to a copy of the bundle, generates pairs under the conditions of val windows from the
same noise with each, on ONNX Runtime's CPU, and scores them. INT8 by min-max is quantised at the same nodes, as common
tools do it by default: one scale for each tensor, from the largest values of the same calibration. Writes
``benchmarks/results/quantization.json``, ``docs/images/quantization.png`` and the tables of ``docs/calibration.md``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from benchmarks.precision import with_tables
from benchmarks.timer import environment, write_json
from benchmarks.timer import measure as time_in_turns

from msdm_calibration.hardware import GPUS, SUPPORT, gains
from msdm_calibration.quantize.calibrate import Calibrated, calibrate, uncalibrated
from msdm_calibration.quantize.grids import GRIDS
from msdm_calibration.quantize.levels import weights_from_errors
from msdm_calibration.quantize.rewrite import quantised
from msdm_calibration.quantize.samples import look
from msdm_calibration.quantize.settings import QuantizeSettings
from msdm_calibration.quantize.subject import FINAL, relative_l2
from msdm_calibration.quantize.variants import write
from msdm_calibration.trajectory import Arrays, Sessions, Visit, batches, follow
from msdm_calibration.where import work_of
from msdm_engine.bundle import Bundle, reference_bundle
from msdm_engine.contract import DENOISER
from msdm_engine.output.png import png_bytes, write_atomically
from msdm_engine.output.records import NOTICE
from msdm_export.precision.variants import add_precision
from msdm_train.data.crops import Crop, request_of, windows
from msdm_train.data.pack import Pack
from msdm_train.evaluation.distances import wasserstein2
from msdm_train.evaluation.encoder import open_encoder
from msdm_train.evaluation.generate import evenly
from msdm_train.evaluation.networks import open_evaluator
from msdm_train.segmentation.scoring import score_masks

ROOT = Path(__file__).parents[1]
RESULT, PICTURE = ROOT / "benchmarks/results/quantization.json", ROOT / "docs/images/quantization.png"
PAGE = ROOT / "docs/calibration.md"
NAIVE = "int8 min-max"
PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Arm:
    """What one set of graphs made: final states [N, C, H, W], pictures, and the inputs of one step for timing."""

    finals: np.ndarray
    pictures: list[np.ndarray]
    step: Arrays


def naive(calibrated: Calibrated) -> bytes:
    """The same nodes by min-max alone: one scale a tensor."""
    subject = calibrated.subject
    largest = {name: float(np.max(seen)) for name, seen in look(subject).channel_largest.items()}
    recipes = uncalibrated(subject, calibrated.grid, largest)
    model = quantised(subject.model, subject.by_node, recipes, calibrated.grid, subject.sigmas)
    data: bytes = model.SerializeToString()
    return data


def run_arm(bundle: Bundle, graphs: Mapping[str, bytes], precision: str, crops: list[Crop], batch: int) -> Arm:
    """Generates the pairs of the crops."""
    backend = Sessions(graphs, precision=precision)
    finals: list[np.ndarray] = []
    pictures: list[np.ndarray] = []
    steps: list[Arrays] = []
    for requests in batches([request_of(crop, index, seed=0) for index, crop in enumerate(crops)], batch):
        last: list[Arrays] = []

        def see(visit: Visit, last: list[Arrays] = last) -> None:
            if visit.graph == DENOISER:
                last[:] = [visit.outputs]
                steps[:] = [visit.inputs]

        pairs = follow(bundle, backend, requests, see, critic=False)
        pictures += [pair.image for pair in pairs]
        finals.append(last[0][FINAL])
    return Arm(np.concatenate(finals), pictures, steps[0])


def scores_of(arm: Arm, plain: Arm, crops: list[Crop], segment: Any, embed: Any, real: np.ndarray) -> dict[str, Any]:
    """Everything that the JSON says of an arm but its speed."""
    found = score_masks([crop.instances for crop in crops], segment(arm.pictures))
    off = np.abs(np.stack(arm.pictures).astype(int) - np.stack(plain.pictures))
    return {
        "trajectory_relative_l2": relative_l2(arm.finals, plain.finals),
        "pixels_of_255": {"mean": float(off.mean()), "p99": float(np.percentile(off, 99)), "largest": int(off.max())},
        "fidelity": {score: found.pooled(score) for score in ("dice", "aji", "pq")},
        "wasserstein": wasserstein2(embed(arm.pictures), real).value,
    }


def timed(graphs: Mapping[str, Mapping[str, bytes]], arms: Mapping[str, Arm]) -> dict[str, Any]:
    """One step of the denoiser on one CPU thread, in turns."""
    sessions = {name: Sessions({DENOISER: given[DENOISER]}) for name, given in graphs.items()}

    def step(name: str) -> Arrays:
        return sessions[name].run(DENOISER, arms[name].step)

    for name in graphs:  # checked before a number is printed
        assert all(np.isfinite(values).all() for values in step(name).values()), name
    timings = time_in_turns({name: partial(step, name) for name in graphs}, warmups=1, repeats=7)
    return {name: timing.as_dict() for name, timing in timings.items()}


def calibrations(folder: Path, pack: Path, count: int, scratch: Path) -> dict[str, Calibrated]:
    """Both grids, written into the bundle."""
    found = {}
    for name in GRIDS:
        settings = QuantizeSettings(folder, name, pack, scratch / "state", windows=count)
        found[name] = calibrate(settings, say=lambda text: click.echo(text, err=True))
        write(found[name], "fp16", tuple(found[name].choices), {}, None)
    return found


def measure(
    bundle: Path, pack: Pack, evaluator: Path, count: int, calibrated_on: int
) -> tuple[dict[str, Any], list[Any]]:
    """The JSON's measurements, and the pictures by arm."""
    crops = windows(pack, "val", Bundle.open(bundle).manifest.sampling.size_px)
    crops = [crops[i] for i in evenly(len(crops), count)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        add_precision(bundle, "fp16", out=folder, pack=pack.path)
        calibrated = calibrations(folder, pack.path, calibrated_on, Path(scratch))
        opened = Bundle.open(folder)
        graphs = {
            name: {graph: opened.contents[spec.file] for graph, spec in opened.in_precision(name).items()}
            for name in ("float32", "fp16", *GRIDS)
        }
    graphs = {
        "float32": graphs["float32"],
        "fp16": graphs["fp16"],
        NAIVE: graphs["float32"] | {DENOISER: naive(calibrated["int8"])},
        **{name: graphs[name] for name in GRIDS},
    }
    arms = {}
    for name, given in graphs.items():
        click.echo(f"sampling with {name}", err=True)
        arms[name] = run_arm(opened, given, "float32" if name == NAIVE else name, crops, opened.manifest.sampling.batch)
    segment, embed = open_evaluator(evaluator, pack, "val", opened.manifest), open_encoder("lite0")
    real = embed([crop.image for crop in crops])
    plain = arms["float32"]
    scored = {name: scores_of(arm, plain, crops, segment, embed, real) for name, arm in arms.items()}
    for name, seconds in timed(graphs, arms).items():
        scored[name]["step_on_cpu"] = seconds
    document = {
        "bundle": {"name": opened.manifest.name, "sha256": Bundle.open(bundle).sha256},
        "protocol": f"{len(crops)} pairs under the conditions of val windows, the same noise with all graphs, the "
        f"bundle's own sampling, ONNX Runtime on one CPU thread; calibrated on {calibrated_on} windows of train. "
        "Trajectory error: relative L2 of the final state against float32. Wasserstein: 2-Wasserstein distance of the "
        "embeddings (lite0, as they are) to those of the val windows. FP16 and the rest of INT8 and FP8 are what "
        "ONNX Runtime's CPU makes of half precision, see precision.md",
        "evaluator": segment.identity,
        "arms": scored,
        "calibrations": {name: told(one) for name, one in calibrated.items()},
        "gains": {name: estimated(one) for name, one in calibrated.items()},
    }
    return document, [arm.pictures for arm in arms.values()]


def told(calibrated: Calibrated) -> dict[str, Any]:
    """What was chosen, and how much each noise level matters."""
    subject, choices = calibrated.subject, calibrated.choices
    flops, criteria = subject.flops, [choice.criterion for choice in choices.values()]
    weights = weights_from_errors(calibrated.level_errors)
    return {
        "share_of_matrix_work": sum(flops[node] for node in choices) / sum(flops.values()),
        "nodes": len(choices),
        "kept": {rule: list(subject.targets.kept.values()).count(rule) for rule in set(subject.targets.kept.values())},
        "attention_share": sum(flops[n] for n, r in subject.targets.kept.items() if r == "attention")
        / sum(flops.values()),
        "criteria": {name: criteria.count(name) for name in sorted(set(criteria))},
        "migrated": sum(choice.recipe.migration is not None for choice in choices.values()),
        "follow_the_noise_level": sum(choice.recipe.levels is not None for choice in choices.values()),
        "levels": [
            {"sigma": float(sigma), "error_alone": float(error), "weight": float(weight)}
            for sigma, error, weight in zip(subject.sigmas, calibrated.level_errors, weights, strict=True)
        ],
    }


def estimated(calibrated: Calibrated) -> dict[str, Any]:
    """Rooflines of a step at the bundle's own batch."""
    subject = calibrated.subject
    work = work_of(subject, set(calibrated.choices), subject.bundle.manifest.sampling.batch)
    return {"work": vars(work), "times_fp16": gains(work, calibrated.grid.name)}


def tables(document: dict[str, Any]) -> dict[str, list[str]]:
    """Markdown tables of the page by their marks."""
    rows = [
        "| graphs | trajectory error | pixels of 255: mean / 99 % / max | Dice | AJI | PQ | Wasserstein | ms a step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, arm in document["arms"].items():
        pixels, fidelity = arm["pixels_of_255"], arm["fidelity"]
        rows.append(
            f"| {name} | {arm['trajectory_relative_l2']:.2g} | {pixels['mean']:.2f} / {pixels['p99']:.0f} / "
            f"{pixels['largest']} | {fidelity['dice']:.4f} | {fidelity['aji']:.4f} | {fidelity['pq']:.4f} | "
            f"{arm['wasserstein']:.3f} | {1000 * arm['step_on_cpu']['median_s']:.0f} |"
        )
    chosen = ["| | " + " | ".join(document["calibrations"]) + " |", "|---" * (1 + len(document["calibrations"])) + "|"]
    for label, key in (("nodes quantised", "nodes"), ("inputs migrated", "migrated"),
                       ("inputs that follow the noise level", "follow_the_noise_level")):  # fmt: skip
        chosen.append(f"| {label} | " + " | ".join(str(one[key]) for one in document["calibrations"].values()) + " |")
    shares = [f"{100 * one['share_of_matrix_work']:.1f} %" for one in document["calibrations"].values()]
    chosen.append("| share of a step's matrix work | " + " | ".join(shares) + " |")
    words = [", ".join(f"{n} {k}" for n, k in one["criteria"].items()) for one in document["calibrations"].values()]
    chosen.append("| scales by | " + " | ".join(words) + " |")
    levels = ["| noise level | error of the final state, this step alone in INT8 | weight |", "|---|---|---|"]
    for level in document["calibrations"]["int8"]["levels"]:
        levels.append(f"| {level['sigma']:.3g} | {level['error_alone']:.2g} | {level['weight']:.3f} |")
    gained = ["| GPU | generation | capability | INT8 | FP8 | peak numbers |", "|---|---|---|---|---|---|"]
    for gpu in GPUS:
        cells = [document["gains"][name]["times_fp16"][gpu.name] for name in GRIDS]
        shown = " | ".join("no such arithmetic" if cell is None else f"{cell:.2f} x" for cell in cells)
        gained.append(f"| {gpu.name} | {gpu.generation} | {gpu.shown_capability} | {shown} | {gpu.source} |")
    runs = ["| precision | where | what runs | how that is known |", "|---|---|---|---|"]
    runs += [f"| {s.precision} | {s.runtime} | {s.runs} | {s.evidence} |" for s in SUPPORT]
    return {"quantized": rows, "chosen": chosen, "noise-levels": levels, "gains": gained, "where": runs}


@click.command()
@click.argument("bundle", type=PATH, required=False)
@click.option("--data", "pack", type=PATH, required=True, help="packed data set: train calibrates, val judges")
@click.option("--evaluator", type=PATH, required=True, help="folder of a segmenter")
@click.option("--windows", "count", type=int, default=24, show_default=True, help="val windows that are scored")
@click.option("--calibrate", "calibrated_on", type=int, default=32, show_default=True, help="train windows")
def main(bundle: Path | None, pack: Path, evaluator: Path, count: int, calibrated_on: int) -> None:
    """Measure, then write JSON, picture and page."""
    document, pictures = measure(bundle or reference_bundle(), Pack(pack), evaluator, count, calibrated_on)
    document["environment"] = environment("numpy", "onnx", "onnxruntime", "torch")
    page = with_tables(PAGE.read_text(), tables(document))
    write_json(RESULT, document)
    picked = evenly(len(pictures[0]), 8)
    sheet = np.concatenate([np.concatenate([row[i] for i in picked], 1) for row in pictures])
    write_atomically(PICTURE, png_bytes(sheet, {"Comment": NOTICE}))
    PAGE.write_text(page)
    click.echo("\n".join(tables(document)["quantized"]))


if __name__ == "__main__":
    main()

"""INT8 and FP8 against float32: pictures, trajectories, fidelity, distance to real, speed; naive min-max beside ours.

    python -m benchmarks.quantization [BUNDLE] --data PACK --evaluator SEGMENTER

Adds FP16, INT8 and FP8 graphs to copies of the bundle, searches for the largest set of blocks within a budget
(``msdm-calibrate sensitivity``, judged by ``msdm-train evaluate`` on val), generates pairs under the conditions of val
windows from the same noise with each, on ONNX Runtime's CPU, and scores them. INT8 by min-max is quantised at the same
nodes, as common tools do it by default: one scale for each tensor, from the largest values of the same calibration.
Writes ``benchmarks/results/quantization.json``, ``docs/images/quantization.png``, the fronts in
``docs/images/calibration`` and the tables of ``docs/calibration.md``; the bundles with the chosen sets stay in the
working folder. Interrupted, the same command goes on with what was searched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from benchmarks.precision import with_tables
from benchmarks.quantization_cpu import cpu_steps
from benchmarks.quantization_plans import plans
from benchmarks.quantization_search import Work, searched
from benchmarks.quantization_tables import tables
from benchmarks.timer import environment, write_json
from benchmarks.timer import measure as time_in_turns

from msdm_calibration.hardware import gains
from msdm_calibration.quantize.calibrate import Calibrated, uncalibrated
from msdm_calibration.quantize.front_plot import plot
from msdm_calibration.quantize.grids import GRIDS
from msdm_calibration.quantize.levels import weights_from_errors
from msdm_calibration.quantize.rewrite import quantised
from msdm_calibration.quantize.samples import look
from msdm_calibration.quantize.subject import FINAL, relative_l2
from msdm_calibration.trajectory import Arrays, Sessions, Visit, batches, follow
from msdm_calibration.where import work_of
from msdm_engine.bundle.reader import Bundle, reference_bundle
from msdm_engine.contract import DENOISER
from msdm_engine.output.png import png_bytes, write_atomically
from msdm_engine.output.records import NOTICE
from msdm_train.data.crops import Crop, request_of, windows
from msdm_train.data.pack import Pack
from msdm_train.evaluation.distances import wasserstein2
from msdm_train.evaluation.encoder import open_encoder
from msdm_train.evaluation.generate import evenly
from msdm_train.evaluation.groups import Standard
from msdm_train.evaluation.networks import open_evaluator
from msdm_train.segmentation.scoring import score_masks

ROOT = Path(__file__).parents[1]
RESULT, PICTURE = ROOT / "benchmarks/results/quantization.json", ROOT / "docs/images/quantization.png"
PAGE, FRONTS = ROOT / "docs/calibration.md", ROOT / "docs/images/calibration"
NAIVE = "int8 min-max"
PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Graphs:
    """A bundle's graphs in one precision: the bundle, under what name it lists them, and the models."""

    bundle: Bundle
    precision: str
    models: dict[str, bytes]


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


def graphs_of(work: Work) -> dict[str, Graphs]:
    """All that are compared, by the name of their row."""

    def of(folder: Path, precision: str) -> Graphs:
        bundle = Bundle.open(folder)
        models = {graph: bundle.contents[spec.file] for graph, spec in bundle.in_precision(precision).items()}
        return Graphs(bundle, precision, models)

    plain = of(work.plain, "float32")
    found = {"float32": plain, "fp16": of(work.plain, "fp16")}
    found[NAIVE] = Graphs(plain.bundle, "float32", plain.models | {DENOISER: naive(work.calibrated["int8"])})
    for name in GRIDS:
        found[name] = of(work.whole(name), name)
    for name in GRIDS:
        if work.reports[name]["chosen"]["blocks"] != work.reports[name]["front"][-1]["blocks"]:
            found[f"{name}, chosen set"] = of(work.chosen(name), name)
    return found


def run_arm(graphs: Graphs, crops: list[Crop]) -> Arm:
    """Generates the pairs of the crops."""
    backend = Sessions(graphs.models, precision=graphs.precision)
    finals: list[np.ndarray] = []
    pictures: list[np.ndarray] = []
    steps: list[Arrays] = []
    batch = graphs.bundle.manifest.sampling.batch
    for requests in batches([request_of(crop, index, seed=0) for index, crop in enumerate(crops)], batch):
        last: list[Arrays] = []

        def see(visit: Visit, last: list[Arrays] = last) -> None:
            if visit.graph == DENOISER:
                last[:] = [visit.outputs]
                steps[:] = [visit.inputs]

        pairs = follow(graphs.bundle, backend, requests, see, critic=False)
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


def timed(graphs: Mapping[str, Graphs], arms: Mapping[str, Arm]) -> dict[str, Any]:
    """One step of the denoiser on one CPU thread, in turns."""
    sessions = {name: Sessions({DENOISER: given.models[DENOISER]}) for name, given in graphs.items()}

    def step(name: str) -> Arrays:
        return sessions[name].run(DENOISER, arms[name].step)

    for name in graphs:  # checked before a number is printed
        assert all(np.isfinite(values).all() for values in step(name).values()), name
    timings = time_in_turns({name: partial(step, name) for name in graphs}, warmups=1, repeats=7)
    return {name: timing.as_dict() for name, timing in timings.items()}


def measure(work: Work, pack: Pack, evaluator: Path, count: int) -> tuple[dict[str, Any], list[Any]]:
    """The JSON's measurements, and the pictures by arm."""
    bundle = Bundle.open(work.plain)
    size_px = bundle.manifest.sampling.size_px
    crops = windows(pack, "val", size_px)
    crops = [crops[i] for i in evenly(len(crops), count)]
    graphs, arms = graphs_of(work), {}
    for name, given in graphs.items():
        click.echo(f"sampling with {name}", err=True)
        arms[name] = run_arm(given, crops)
    segment, encode = open_evaluator(evaluator, pack, "val", bundle.manifest), open_encoder("lite0")
    standard = Standard.of(encode([crop.image for crop in windows(pack, "train", size_px)]))

    def embed(pictures: list[np.ndarray]) -> np.ndarray:
        return standard(encode(pictures))

    real = embed([crop.image for crop in crops])
    scored = {name: scores_of(arm, arms["float32"], crops, segment, embed, real) for name, arm in arms.items()}
    for name, seconds in timed(graphs, arms).items():
        scored[name]["step_on_cpu"] = seconds
    document = {
        "bundle": work.told,
        "protocol": f"{len(crops)} pairs under the conditions of val windows, the same noise with all graphs, the "
        f"bundle's own sampling, ONNX Runtime on one CPU thread; calibrated on {work.windows} windows of train. "
        "Trajectory error: relative L2 of the final state against float32. Wasserstein: 2-Wasserstein distance of the "
        "embeddings (lite0, in standard deviations of the train windows) to those of the val windows. FP16 and the "
        "rest of INT8 and FP8 are what ONNX Runtime's CPU makes of half precision, see precision.md",
        "evaluator": segment.identity,
        "arms": scored,
        "calibrations": {name: told(one) for name, one in work.calibrated.items()},
        "gains": {name: estimated(one) for name, one in work.calibrated.items()},
        "search": work.reports,
        "cpu": cpu_steps(work, request_of(crops[0], 0, seed=0)),
        "plans": plans(work),
    }
    return document, [arm.pictures for arm in arms.values()]


def told(calibrated: Calibrated) -> dict[str, Any]:
    """What was chosen, and how much each noise level matters."""
    subject, choices = calibrated.subject, calibrated.choices
    flops, criteria = subject.flops, [choice.criterion for choice in choices.values()]
    weights = weights_from_errors(calibrated.level_errors)
    rules = list(subject.targets.kept.values())
    return {
        "share_of_matrix_work": sum(flops[node] for node in choices) / sum(flops.values()),
        "nodes": len(choices),
        "kept": {rule: rules.count(rule) for rule in sorted(set(rules))},
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


@click.command()
@click.argument("bundle", type=PATH, required=False)
@click.option("--data", "pack", type=PATH, required=True, help="packed data set: train calibrates, val judges")
@click.option("--evaluator", type=PATH, required=True, help="folder of a segmenter")
@click.option("--windows", "count", type=int, default=16, show_default=True, help="val windows that are scored")
@click.option("--calibrate", "calibrated_on", type=int, default=16, show_default=True, help="train windows")
@click.option("--budget", default="dice 0.5, wasserstein 3%", show_default=True, help="what a chosen set may lose")
@click.option("--out", type=PATH, default=Path("runs/quantization"), show_default=True, help="working folder")
def main(
    bundle: Path | None, pack: Path, evaluator: Path, count: int, calibrated_on: int, budget: str, out: Path
) -> None:
    """Measure, then write JSON, pictures and page."""
    work = searched(bundle or reference_bundle(), pack, evaluator, calibrated_on, budget, out)
    document, pictures = measure(work, Pack(pack), evaluator, count)
    document["environment"] = environment("numpy", "onnx", "onnxruntime", "torch")
    page = with_tables(PAGE.read_text(), tables(document))
    write_json(RESULT, document)
    picked = evenly(len(pictures[0]), 8)
    sheet = np.concatenate([np.concatenate([row[i] for i in picked], 1) for row in pictures])
    write_atomically(PICTURE, png_bytes(sheet, {"Comment": NOTICE}))
    for name, report in work.reports.items():
        plot(FRONTS / f"front-{name}.png", report)
    PAGE.write_text(page)
    click.echo("\n".join(tables(document)["quantized"] + tables(document)["sets"]))


if __name__ == "__main__":
    main()

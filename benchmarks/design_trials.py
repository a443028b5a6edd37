"""Design trials: variants of the model or of its training at equal compute, side by side.

    python -m benchmarks.design_trials PACK --out trials.json --seconds 300 --variant reference --variant stem-1

Every variant trains in this one process on one thread, in turns: the one with the least CPU time so far makes the next
steps, so that a slow spell of the machine falls on all of them alike. The constant learning rate leaves no schedule to
tune. What is compared: validation losses of the averaged weights after equal CPU time (losses of variants with another
noise distribution are taken on the noise levels of the first one), parameters, operations, and what the engine pays
for ever: the time of a denoising step in ONNX Runtime, and the memory of the conditions of a pair. One seed and minutes
of training rank designs roughly; a difference of a few per cent is none.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
import torch
from benchmarks.timer import environment, measure, write_json

from msdm_engine.errors import RequestError, nearest
from msdm_export.graphs import graph_exports
from msdm_export.onnx_export import onnx_from_module
from msdm_train.cost import cost_of, training_step_flops
from msdm_train.model.conditioner import Conditions
from msdm_train.model.config import PRESETS, preset
from msdm_train.model.msdm import MSDM
from msdm_train.training.config import FitConfig
from msdm_train.training.fit import Trainer, open_trainer
from msdm_train.training.validation import validation_losses


@dataclass(frozen=True)
class Variant:
    """What is changed against the preset and the settings of the trial."""

    model: dict[str, Any]
    settings: dict[str, Any]


VARIANTS = {
    "reference": Variant({}, {}),
    "no-norm-below": Variant({"norm_below": ()}, {}),
    "no-detail": Variant({"detail_width": 0}, {}),
    "three-levels": Variant(
        {
            "channels": (48, 96, 144),
            "map_channels": (32, 48, 48),
            "attention_levels": (1, 2),
            "norm_below": (1,),
        },
        {},
    ),
    "two-levels": Variant(
        {"channels": (48, 96), "map_channels": (32, 48), "attention_levels": (1,), "norm_below": (0,)}, {}
    ),
    "stem-1": Variant({"stem": 1}, {}),
    "attention-3": Variant({"attention_levels": (3,)}, {}),
    "attention-123": Variant({"attention_levels": (1, 2, 3)}, {}),
    "noise-low": Variant({}, {"noise_mean": -1.4}),
    "noise-high": Variant({}, {"noise_mean": -0.4}),
    "noise-edm": Variant({}, {"noise_mean": -1.2, "noise_std": 1.2}),
}


class Trial:
    """A variant while it trains."""

    def __init__(self, name: str, pack: Path, run: Path, size: str, config: FitConfig) -> None:
        variant = VARIANTS[name]
        self.name, self.cpu_s, self.steps = name, 0.0, 0
        self.config = replace(config, **variant.settings)
        PRESETS[f"{size} {name}"] = replace(preset(size), **variant.model)  # of this process only
        self.trainer: Trainer = open_trainer(pack, run, self.config, model=f"{size} {name}")
        varied: dict[str, Any] = {"augment": self.config.augment(), "dropout": self.config.dropout()}
        self._sampler = self.trainer._sampler("train", self.config.seed, **varied)

    def advance(self, steps: int) -> None:
        """Makes some steps and counts their CPU time."""
        began = time.process_time()
        for _ in range(steps):
            self.steps += 1
            self.trainer._step(self._sampler(self.steps - 1), self.steps)
        self.cpu_s += time.process_time() - began

    def result(self, noise_of: Trial) -> dict[str, Any]:
        """Quality and cost; validation on the noise levels of another trial."""
        model, config = self.trainer._averaged(), self.config
        cost = cost_of(model.config, config.crop_px)
        return {
            **validation_losses(model, self.trainer._sampler("val", 99), noise_of.config.noise()),
            "steps": self.steps,
            "cpu_seconds": round(self.cpu_s, 1),
            "parameters": cost.total,
            "gflop_training_step": training_step_flops(model.config, config.batch, config.crop_px) / 1e9,
            "gflop_denoising_step": cost.step_flops / 1e9,
            "condition_bytes_a_pair": condition_bytes(model, config.crop_px),
        }


def condition_bytes(model: MSDM, side_px: int) -> int:
    """Bytes of the conditioner's outputs for one pair in float32: what every step reads beside its weights."""
    context = _context(model, side_px)
    return sum(tensor.numel() * 4 for tensor in (*context[:4], *context.map_features))


@torch.no_grad()
def _context(model: MSDM, side_px: int) -> Any:
    config = model.config
    maps, states = torch.zeros(1, config.maps, side_px, side_px), torch.zeros(1, config.text_tokens, config.text.hidden)
    present = torch.ones(1, 1), torch.zeros(1, 12), torch.ones(1, 2)
    return model.conditioner(Conditions(maps, *present, states, torch.ones(1, config.text_tokens)))


def onnx_step(model: MSDM, side_px: int) -> Callable[[], object]:
    """A denoising step of one pair in ONNX Runtime on one thread; finished when it returns."""
    graph = graph_exports(model)[2]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    exported = onnx_from_module(graph).SerializeToString()
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    context = _context(model, side_px)
    picture = np.zeros((1, model.config.state_channels, side_px, side_px), np.float32)
    row, weights = np.array([1.0, 0.5, 0.5, 0, 0], np.float32), np.ones((1, 1), np.float32)
    conditions = [tensor[None].numpy() for tensor in (*context[:4], *context.map_features)]
    feeds = dict(zip(graph.input_names, [picture, picture, picture, row, weights, *conditions], strict=True))
    expected = session.run(None, feeds)
    if not all(np.isfinite(value).all() for value in expected):
        raise RuntimeError("the exported step does not compute")
    return lambda: session.run(None, feeds)


def run_trials(
    pack: Path, names: list[str], size: str, config: FitConfig, seconds: float, onnx: bool
) -> dict[str, Any]:
    """Trains the variants for ``seconds`` of CPU time each; a JSON object with one entry for each."""
    for name in names:
        if name not in VARIANTS:
            raise RequestError(f"unknown variant '{name}'", note=nearest(name, VARIANTS))
    with tempfile.TemporaryDirectory() as folder:
        trials = [Trial(name, pack, Path(folder) / name, size, config) for name in names]
        while (behind := min(trials, key=lambda trial: trial.cpu_s)).cpu_s < seconds:
            behind.advance(2)
        results = {trial.name: trial.result(trials[0]) for trial in trials}
        if onnx:
            steps = {trial.name: onnx_step(trial.trainer._averaged().cpu(), config.crop_px) for trial in trials}
            for name, timing in measure(steps).items():
                results[name]["onnx_step"] = timing.as_dict()
    return results


@click.command()
@click.argument("pack", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON")
@click.option("--variant", "names", multiple=True, default=tuple(VARIANTS), help="repeatable [default: all]")
@click.option("--model", "size", default="small", show_default=True)
@click.option("--seconds", type=float, default=600.0, show_default=True, help="CPU time of each variant")
@click.option("--crop", "crop_px", type=int, default=64, show_default=True)
@click.option("--batch", type=int, default=16, show_default=True)
@click.option("--mixed-precision", default="bf16", show_default=True)
@click.option("--onnx/--no-onnx", default=True, show_default=True, help="time the exported step")
def main(
    pack: Path,
    out: Path,
    names: tuple[str, ...],
    size: str,
    seconds: float,
    crop_px: int,
    batch: int,
    onnx: bool,
    mixed_precision: str,
) -> None:
    """Train variants in turns at equal CPU time and compare them."""
    torch.set_num_threads(1)
    config = FitConfig(
        10**6, batch, crop_px, warmup_steps=50, cooldown_share=0, mixed_precision=mixed_precision, spike_factor=0
    )
    results = run_trials(pack, list(names), size, config, seconds, onnx)
    settings = {"model": size, "seconds": seconds, "config": config.to_json()}
    write_json(out, {"environment": environment("torch", "onnxruntime"), "settings": settings, "variants": results})
    for name, found in results.items():
        click.echo(
            f"{name:16s} given {found['val/given_maps']:.4f} invented {found['val/invented_maps']:.4f} "
            f"{found['steps']:6d} steps {found['parameters'] / 1e6:.2f} M"
        )


if __name__ == "__main__":
    main()

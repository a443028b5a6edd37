"""``msdm-train fit --dry-run``: what would be trained, without writing anything."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from msdm_train.cost import cost_of, training_step_flops
from msdm_train.data.pack import Pack
from msdm_train.training.config import FitConfig
from msdm_train.training.start import begin


def plan(pack_path: Path, run: Path, config: FitConfig, *, model: str | None = None, init: Path | None = None) -> str:
    """Arguments and errors as :func:`msdm_train.training.fit.fit`; returns the plan in words."""
    pack = Pack(pack_path)
    start = begin(pack, run, config, model, init)
    network = start.info.model
    cost = cost_of(network, config.crop_px)
    flops = training_step_flops(network, config.batch, config.crop_px)
    fields = pack.split("train")
    nuclei = sum(field.nuclei for field in fields)
    lines = [
        f"run         {run}: {start.origin}, to step {config.steps}",
        f"data        {pack.info.name} ({pack.info.licence}): {len(fields)} train fields, {nuclei} nuclei",
        *(f"setting     {name} = {value}" for name, value in asdict(config).items()),
        *(f"model       {name} = {value}" for name, value in network.to_json().items()),
        *(f"parameters  {count:>12,d} {part}" for part, count in cost.parameters.items()),
        f"parameters  {cost.total:>12,d} in all",
        f"arithmetic  {flops / 1e9:.2f} GFLOP a training step of {config.batch} crops, forward and backward, a process",
        f"arithmetic  {cost.step_flops / 1e9:.3f} GFLOP a denoising step of one crop",
        "            (2 for each multiply-accumulate of convolutions and matrix products)",
        "dry run: nothing was written",
    ]
    return "\n".join(lines)

"""``msdm-train fit --dry-run``: what would be trained, without writing anything."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from msdm_train.cost import cost_of, training_step_flops
from msdm_train.data.pack import Pack
from msdm_train.training.config import FitConfig
from msdm_train.training.forecast import PROBE_STEPS, memory_of, run_seconds, seconds_a_step
from msdm_train.training.start import Start, begin


def plan(
    pack_path: Path,
    run: Path,
    config: FitConfig,
    *,
    model: str | None = None,
    init: Path | None = None,
    probe: bool = True,
) -> str:
    """The plan of :func:`msdm_train.training.fit.fit` in words; its arguments and errors.

    Args:
        probe: try a few steps to estimate the time.
    """
    pack = Pack(pack_path)
    start = begin(pack, run, config, model, init)
    network = start.info.model
    cost = cost_of(network, config.crop_px)
    flops = training_step_flops(network, config.batch, config.crop_px)
    fields = pack.split("train")
    nuclei = sum(field.nuclei for field in fields)
    memory = memory_of(network, config)
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
        *(f"memory      {size / 2**20:>10,.1f} MiB {part}" for part, size in asdict(memory).items()),
        f"memory      {memory.total / 2**20:>10,.1f} MiB in all, estimated: counted on tensors without data, without",
        "            what kernels need beside them and without the data",
        *(_time(pack, start, config) if probe else ["time        not estimated"]),
        "dry run: nothing was written",
    ]
    return "\n".join(lines)


def _time(pack: Pack, start: Start, config: FitConfig) -> list[str]:
    """What a few steps took, and what that would mean for the run."""
    seconds = seconds_a_step(pack, start, config)
    hours = run_seconds(config, seconds, start.step) / 3600
    each = zip(config.all_crops(), seconds, strict=True)
    return [
        *(f"time        {took:10.3f} s a step of {batch} crops of {crop} px" for (crop, batch), took in each),
        f"time        {hours:10.2f} h left, estimated: the fastest of {PROBE_STEPS} steps tried now in one process,",
        "            without optimizer, validation and checkpoints",
    ]

"""Training of a segmenter. A run that was killed goes on from its last checkpoint with the same losses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from msdm_engine.errors import NumericsError, RequestError
from msdm_train.segmentation.batches import Batches
from msdm_train.segmentation.checkpoint import TRAINING_FILE, SegmenterInfo, read_segmenter_info, write_segmenter
from msdm_train.segmentation.config import SegmenterConfig
from msdm_train.segmentation.loss import segmentation_loss
from msdm_train.segmentation.network import build
from msdm_train.segmentation.sources import Source
from msdm_train.training.checkpoint import read_tensors, restore_training, settled, training_tensors
from msdm_train.training.ema import PowerEma
from msdm_train.training.log import RunLog

#: Settings that a run may change when it goes on: they do not touch what is learnt.
_FREE = ("save_every", "log_every")


def train_segmenter(source: Source, config: SegmenterConfig, out: Path) -> Path:
    """Trains, or goes on with, the segmenter in folder ``out``; a finished one is returned as it is.

    Args:
        source: where its crops come from.
        config: settings; of a run that goes on they must be those that it began with.
        out: folder of the run: ``checkpoint/``, ``log.jsonl``, and TensorBoard's files.

    Returns:
        the folder of the checkpoint.

    Raises:
        InputError: the source has pictures smaller than a crop, or the checkpoint is damaged.
        RequestError: ``out`` holds a run with other settings or another source.
        NumericsError: the loss is not finite; the last good checkpoint is kept.
    """
    folder = out / "checkpoint"
    batches = Batches(source, config)
    done = _steps_done(folder, source, config)
    if done == config.steps:
        return folder
    torch.manual_seed(config.seed)
    network = build(config.architecture, pretrained=done == 0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    if done:
        restore_training(read_tensors(settled(folder) / TRAINING_FILE), network, optimizer)
        ema = PowerEma(network, start=read_tensors(settled(folder) / "model.safetensors"))
    else:
        ema = PowerEma(network)
    out.mkdir(parents=True, exist_ok=True)
    log, sums = RunLog(out, done, config.steps), torch.zeros(5)
    for step in range(done + 1, config.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step)
        image, target = batches(step)
        loss = segmentation_loss(network(image.contiguous(memory_format=torch.channels_last)), target)
        if not torch.isfinite(loss.total):
            log.close()
            raise NumericsError(
                f"the loss is {loss.total.item()} at step {step}",
                note=f"the last good checkpoint, if there was one, is kept in {folder}",
                hint="train again in a new folder with a lower learning rate",
            )
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        ema.update(network, step)
        sums += torch.stack([part.detach() for part in loss])
        log.advance()
        if step % config.log_every == 0:
            names = (f"train/{name}" for name in loss._fields)
            log.write(step, dict(zip(names, (sums / config.log_every).tolist(), strict=True)))
            sums.zero_()
        if step % config.save_every == 0 or step == config.steps:
            info = SegmenterInfo(step, config, source.identity)
            write_segmenter(folder, info, ema.weights, training_tensors(network, optimizer))
    log.close()
    return folder


def _steps_done(folder: Path, source: Source, config: SegmenterConfig) -> int:
    """Steps of the checkpoint that a run goes on from; 0 without one."""
    if not settled(folder).exists():
        return 0
    before = read_segmenter_info(folder)
    same = replace(before.config, **{name: getattr(config, name) for name in _FREE})
    if same != config or before.source != source.identity:
        raise RequestError(
            f"{folder} was trained otherwise",
            note=f"settings {before.config.to_json()} on {before.source}",
            hint="choose another --out, or the same settings to go on",
        )
    return before.step

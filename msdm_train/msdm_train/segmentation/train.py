"""Training of a segmenter. A run that was killed goes on from its last checkpoint with the same losses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from msdm_engine.errors import NumericsError, RequestError
from msdm_train.segmentation.batches import Batches
from msdm_train.segmentation.checkpoint import (
    TRAINING_FILE,
    WEIGHTS_FILE,
    SegmenterInfo,
    read_segmenter_info,
    write_segmenter,
)
from msdm_train.segmentation.config import SegmenterConfig
from msdm_train.segmentation.loss import SegmentationLoss, segmentation_loss
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
        NumericsError: the loss or its gradient is not finite; the last good checkpoint is kept.
    """
    folder = out / "checkpoint"
    batches = Batches(source, config)
    done = _steps_done(folder, source, config)
    if done == config.steps:
        return folder
    run = _Run(folder, config, done)
    out.mkdir(parents=True, exist_ok=True)
    log = RunLog(out, done, config.steps)
    try:
        sums, summed = torch.zeros(len(SegmentationLoss._fields)), 0
        for step in range(done + 1, config.steps + 1):
            sums, summed = sums + torch.stack(run.step(step, *batches(step))), summed + 1
            log.advance()
            if step % config.log_every == 0:
                names = (f"train/{name}" for name in SegmentationLoss._fields)
                log.write(step, dict(zip(names, (sums / summed).tolist(), strict=True)))
                sums, summed = torch.zeros_like(sums), 0
            if step % config.save_every == 0 or step == config.steps:
                run.save(step, source)
    finally:
        log.close()
    return folder


class _Run:
    """Network, optimizer and average of a training, from its beginning or from its last checkpoint."""

    def __init__(self, folder: Path, config: SegmenterConfig, done: int) -> None:
        self._folder, self._config = folder, config
        torch.manual_seed(config.seed)
        self._network = build(config.architecture, pretrained=done == 0)
        self._network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters = self._network.parameters()
        self._optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
        averages = None
        if done:
            restore_training(read_tensors(settled(folder) / TRAINING_FILE), self._network, self._optimizer)
            averages = read_tensors(settled(folder) / WEIGHTS_FILE)
        self._ema = PowerEma(self._network, start=averages)

    def step(self, step: int, image: Tensor, target: Tensor) -> list[Tensor]:
        """One optimizer step; returns the parts of the loss.

        Raises:
            NumericsError: the loss or its gradient is not finite; nothing was changed then.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.rate(step)
        loss = segmentation_loss(self._network(image.contiguous(memory_format=torch.channels_last)), target)
        self._optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        slope = torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        if not (torch.isfinite(loss.total) and torch.isfinite(slope)):
            raise NumericsError(
                f"the loss is {loss.total.item()} and its gradient {slope.item()} at step {step}",
                note=f"the last good checkpoint, if there was one, is kept in {self._folder}",
                hint="train again in a new folder with a lower learning rate",
            )
        self._optimizer.step()
        self._ema.update(self._network, step)
        return [part.detach() for part in loss]

    def save(self, step: int, source: Source) -> None:
        """Writes the checkpoint of this step over the last one, atomically."""
        info = SegmenterInfo(step, self._config, source.identity)
        write_segmenter(self._folder, info, self._ema.weights, training_tensors(self._network, self._optimizer))


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

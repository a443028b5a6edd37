"""``msdm-train fit``: the training loop.

Crops, dropped conditions, noise levels, noise and BERT's dropout are functions of (seed, step, rank). A run that
was killed therefore goes on with the same losses from its last checkpoint, without any saved sampler state.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.errors import NumericsError, RequestError
from msdm_train.data.batches import Augment, Batch, ConditionDropout, CropSampler
from msdm_train.data.pack import Pack
from msdm_train.model.msdm import MSDM
from msdm_train.training.checkpoint import restore_training, training_tensors, write_checkpoint
from msdm_train.training.config import FitConfig
from msdm_train.training.ema import PowerEma
from msdm_train.training.grid import sample_grid
from msdm_train.training.log import RunLog
from msdm_train.training.loss import LossParts, Noise, Objective, edm_loss
from msdm_train.training.start import Start, begin

#: Random streams of a step: noise of each rank from 0 on, dropout of each rank from the second half on.
STREAMS = 4096


def fit(pack_path: Path, run: Path, config: FitConfig, *, model: str | None = None, init: Path | None = None) -> Path:
    """Trains, or goes on with, the run in folder ``run``.

    Args:
        pack_path: data set made by ``msdm-train prepare``.
        run: folder of the run; if it holds a checkpoint, training resumes there.
        config: settings; of a resumed run they must be those that it began with (``steps`` may grow).
        model: name of a preset, for a run that starts from nothing.
        init: checkpoint folder to start from (fine-tuning, or growing a reference model).

    Returns:
        the folder of the last checkpoint.

    Raises:
        InputError: pack or checkpoint cannot be used.
        RequestError: settings that are illegal, or not those that the run began with.
        NumericsError: the loss is not finite; the last good checkpoint is kept.
    """
    trainer = open_trainer(pack_path, run, config, model=model, init=init)
    last = trainer.run_to_end()
    trainer.accelerator.end_training()
    return last


def open_trainer(
    pack_path: Path, run: Path, config: FitConfig, *, model: str | None = None, init: Path | None = None
) -> Trainer:
    """Everything ready for the first step of :func:`fit`; one call in each process of a distributed run."""
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise RequestError("mixed precision fp16 needs a GPU", hint="use bf16 or no on this machine")
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=not torch.cuda.is_available())
    pack = Pack(pack_path)
    start = begin(pack, run, config, model, init)
    accelerator.wait_for_everyone()  # no process may still read what the main one is about to write
    tokenizer = run / "tokenizer.json"
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        tokenizer.write_text(start.tokenizer)
    accelerator.wait_for_everyone()
    return Trainer(accelerator, pack, run, config, start, tokenizer)


class _Steps(Dataset[Batch]):
    """Adapter: item ``i`` is the whole batch of step ``first + i``."""

    def __init__(self, sampler: CropSampler, first: int, count: int) -> None:
        self.sampler, self.first, self.count = sampler, first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        return self.sampler(self.first + index)


class Trainer:
    """The state of a run while it trains."""

    def __init__(
        self, accelerator: Accelerator, pack: Pack, run: Path, config: FitConfig, start: Start, tokenizer: Path
    ) -> None:
        self.accelerator, self.run, self.config, self.start, self.pack = accelerator, run, config, start, pack
        self.tokenizer_file = tokenizer
        torch.manual_seed(config.seed)
        self.model = MSDM(start.info.model)
        if start.weights is not None:
            self.model.load_state_dict(start.weights)
        self.model.to(accelerator.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = PowerEma(self.model, config.ema_gamma, start.weights)
        adam = torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
        self.optimizer = accelerator.prepare_optimizer(adam)
        if start.training is not None:
            restore_training(start.training, self.model, adam, accelerator.scaler)
        self.objective = accelerator.prepare_model(Objective(self.model))
        self.tokenizer = TextTokenizer(tokenizer, start.info.model.text_tokens)
        # The first step of a model that already trained counts as late, so that the average keeps its weights.
        self.done_before = start.info.step - start.step
        self.noise = Noise()

    def _sampler(self, split: str, seed: int, **options: Any) -> CropSampler:
        return CropSampler(
            self.pack,
            split,
            crop_px=self.config.crop_px,
            batch=self.config.batch,
            tokenizer=self.tokenizer,
            seed=seed,
            rank=self.accelerator.process_index,
            **options,
        )

    def run_to_end(self) -> Path:
        """Trains to the last step; logs, validates and saves on the way."""
        config, first = self.config, self.start.step
        sampler = self._sampler("train", config.seed, augment=Augment(), dropout=ConditionDropout())
        batches = _Steps(sampler, first, config.steps - first)
        loader = DataLoader(batches, batch_size=None, num_workers=config.workers)
        log = RunLog(self.run, first, config.steps) if self.accelerator.is_main_process else None
        sums, summed = torch.zeros(3), 0
        for step, batch in enumerate(loader, first + 1):
            sums, summed = sums + self._step(batch, step).cpu(), summed + 1
            if log is None:
                continue
            log.advance()
            if step % config.log_every == 0:
                means = (sums / summed).tolist()
                log.write(step, dict(zip(("train/total", "train/image", "train/maps"), means, strict=True)))
                sums, summed = torch.zeros(3), 0
            if step % config.validate_every == 0 and self.pack.split("val"):
                log.write(step, self.validate())
                log.picture(step, sample_grid(self._averaged(), self._sampler("val", 7)(0)))
            if step % config.save_every == 0 or step == config.steps:
                self.save(step)
        if log is not None:
            log.close()
        self.accelerator.wait_for_everyone()
        return self.run / "checkpoint"

    def _step(self, batch: Batch, step: int) -> Tensor:
        """One optimizer step; returns the parts of the loss, averaged over the processes: [3] total, image, maps.

        Raises:
            NumericsError: the loss is not finite, in any process.
        """
        accelerator, device = self.accelerator, self.accelerator.device
        stream = (self.config.seed * 1_000_003 + step) * STREAMS + accelerator.process_index
        generator = torch.Generator().manual_seed(stream)
        torch.manual_seed(stream + STREAMS // 2)  # BERT's dropout draws from the global generator
        tensors = {name: torch.as_tensor(value).to(device) for name, value in batch.items()}
        sigma = self.noise.draw(self.config.batch, generator).to(device)
        noise = torch.randn(tensors["state"].shape, generator=generator).to(device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(step, self.done_before)
        parts: LossParts = self.objective(tensors, sigma, noise)
        means: Tensor = accelerator.reduce(torch.stack([part.detach() for part in parts]), "mean")
        if not torch.isfinite(means[0]):
            raise NumericsError(
                f"the loss is {means[0].item()} at step {step}",
                note=f"the last good checkpoint is kept in {self.run / 'checkpoint'}",
                hint="resume with a lower learning rate in a new folder: --init that checkpoint",
            )
        accelerator.backward(parts.total)
        accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model, step + self.done_before)
        return means

    def _averaged(self) -> MSDM:
        averaged = MSDM(self.start.info.model).to(self.accelerator.device)
        averaged.load_state_dict(self.ema.weights)
        return averaged.eval()

    @torch.no_grad()
    def validate(self, batches: int = 6) -> dict[str, float]:
        """Loss of the averaged weights on fixed crops and noise of ``val``: with all conditions, and without maps."""
        model, sampler = self._averaged(), self._sampler("val", 99)
        totals = {"val/given_maps": 0.0, "val/invented_maps": 0.0}
        for i in range(batches):
            generator = torch.Generator().manual_seed(i)
            batch = {k: torch.as_tensor(v).to(self.accelerator.device) for k, v in sampler(i).items()}
            sigma = self.noise.draw(self.config.batch, generator).to(self.accelerator.device)
            noise = torch.randn(batch["state"].shape, generator=generator).to(sigma.device)
            totals["val/given_maps"] += edm_loss(model, batch, sigma, noise).image.item() / batches
            batch["maps_present"] = torch.zeros_like(batch["maps_present"])
            totals["val/invented_maps"] += edm_loss(model, batch, sigma, noise).total.item() / batches
        return totals

    def save(self, step: int) -> None:
        """Writes the checkpoint of this step over the last one, atomically."""
        training = {**self.start.info.training, "config": asdict(self.config), "run_step": step}
        info = replace(self.start.info, step=step + self.done_before, training=training)
        state = training_tensors(self.model, self.optimizer, self.accelerator.scaler)
        write_checkpoint(self.run / "checkpoint", info, self.ema.weights, self.tokenizer_file, state)


__all__ = ["FitConfig", "Trainer", "fit", "open_trainer"]

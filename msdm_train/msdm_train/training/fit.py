"""``msdm-train fit``: the training loop.

Crops, dropped conditions, noise levels, noise and BERT's dropout are functions of (seed, step, rank). A run that
was killed therefore goes on with the same losses from its last checkpoint, without any saved sampler state.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.errors import NumericsError, RequestError
from msdm_train.data.batches import Batch, CropSampler
from msdm_train.data.pack import Pack
from msdm_train.model.msdm import MSDM
from msdm_train.model.pretrained import FrozenText
from msdm_train.training.checkpoint import CheckpointInfo, restore_training, training_tensors, write_checkpoint
from msdm_train.training.config import FitConfig
from msdm_train.training.ema import PowerEma, averages_from_tensors, tensors_of_averages
from msdm_train.training.grid import sample_grid
from msdm_train.training.guard import Guard
from msdm_train.training.log import RunLog
from msdm_train.training.loss import LossParts, Objective
from msdm_train.training.score import Judge, Scorer
from msdm_train.training.start import Start, begin
from msdm_train.training.validation import validation_losses

#: Random streams of a step: noise of each rank from 0 on, dropout of each rank from the second half on.
STREAMS = 4096


def fit(
    pack_path: Path,
    run: Path,
    config: FitConfig,
    *,
    model: str | None = None,
    init: Path | None = None,
    judge: Judge | None = None,
) -> Path:
    """Trains, or goes on with, the run in folder ``run``.

    Args:
        pack_path: data set made by ``msdm-train prepare``.
        run: folder of the run; if it holds a checkpoint, training resumes there.
        config: settings; of a resumed run they must be those that it began with (``steps`` may grow).
        model: name of a preset, for a run that starts from nothing.
        init: checkpoint folder to start from (fine-tuning, or growing a reference model).
        judge: networks that score samples every ``config.score_every`` steps.

    Returns:
        the folder of the last checkpoint.

    Raises:
        InputError: pack or checkpoint cannot be used.
        RequestError: settings that are illegal, or not those that the run began with.
        NumericsError: a loss or gradient is not finite, or the loss diverges; the last good checkpoint is kept.
    """
    trainer = open_trainer(pack_path, run, config, model=model, init=init, judge=judge)
    last = trainer.run_to_end()
    trainer.accelerator.end_training()
    return last


def open_trainer(
    pack_path: Path,
    run: Path,
    config: FitConfig,
    *,
    model: str | None = None,
    init: Path | None = None,
    judge: Judge | None = None,
) -> Trainer:
    """Everything ready for the first step of :func:`fit`; one call in each process of a distributed run."""
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise RequestError("mixed precision fp16 needs a GPU", hint="use bf16 or no on this machine")
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=not torch.cuda.is_available())
    pack = Pack(pack_path)
    start = begin(pack, run, config, model, init)
    scorer = Scorer.open(pack, config, judge, start) if config.score_every else None
    accelerator.wait_for_everyone()  # no process may still read what the main one is about to write
    tokenizer = run / "tokenizer.json"
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        tokenizer.write_text(start.tokenizer)
    accelerator.wait_for_everyone()
    return Trainer(accelerator, pack, run, config, start, tokenizer, scorer)


class _Steps(Dataset[Batch]):
    """Adapter: item ``i`` is the whole batch of step ``first + i + 1``."""

    def __init__(self, samplers: dict[tuple[int, int], CropSampler], config: FitConfig, first: int) -> None:
        self.samplers, self.config, self.first = samplers, config, first

    def __len__(self) -> int:
        return self.config.steps - self.first

    def __getitem__(self, index: int) -> Batch:
        step = self.first + index
        return self.samplers[self.config.crops_at(step + 1)](step)


class Trainer:
    """The state of a run while it trains."""

    def __init__(
        self,
        accelerator: Accelerator,
        pack: Pack,
        run: Path,
        config: FitConfig,
        start: Start,
        tokenizer: Path,
        scorer: Scorer | None = None,
    ) -> None:
        self.accelerator, self.run, self.config, self.start, self.pack = accelerator, run, config, start, pack
        self.tokenizer_file, self.scorer = tokenizer, scorer
        torch.manual_seed(config.seed)
        self.model = MSDM(start.info.model)
        if start.weights is not None:
            self.model.load_state_dict(start.weights)
        elif start.text_weights is not None:
            self.model.text_encoder.load_state_dict(start.text_weights)
        self.model.to(accelerator.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = PowerEma(self.model, config.ema_gamma, start.weights)
        kept = averages_from_tensors(start.training or {})
        self.also = [PowerEma(self.model, g, kept.get(g, start.weights)) for g in config.ema_also]
        frozen = config.text_encoder and not config.tune_text_encoder
        self.text = FrozenText(self.model.text_encoder) if frozen else None
        fused = True if accelerator.device.type == "cpu" else None  # 14 ms a step instead of 28 for `small`
        adam = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=fused
        )
        self.optimizer = accelerator.prepare_optimizer(adam)
        if start.training is not None:
            restore_training(start.training, self.model, adam, accelerator.scaler)
        self.objective = accelerator.prepare_model(Objective(self.model))
        self.tokenizer = TextTokenizer(tokenizer, start.info.model.text_tokens)
        # The first step of a model that already trained counts as late, so that the average keeps its weights.
        self.done_before = start.info.step - start.step
        self.noise = config.noise()
        self.guard = Guard(config.spike_factor, config.spike_window)

    def _sampler(self, split: str, seed: int, crops: tuple[int, int] | None = None, **options: Any) -> CropSampler:
        crop_px, batch = crops or (self.config.crop_px, self.config.batch)
        return CropSampler(
            self.pack,
            split,
            crop_px=crop_px,
            batch=batch,
            tokenizer=self.tokenizer,
            seed=seed,
            rank=self.accelerator.process_index,
            **options,
        )

    def run_to_end(self) -> Path:
        """Trains to the last step; logs, validates and saves on the way."""
        config, first = self.config, self.start.step
        varied = {"augment": config.augment(), "dropout": config.dropout()}
        samplers = {crops: self._sampler("train", config.seed, crops, **varied) for crops in config.all_crops()}
        loader = DataLoader(_Steps(samplers, config, first), batch_size=None, num_workers=config.workers)
        log = RunLog(self.run, first, config.steps) if self.accelerator.is_main_process else None
        sums, summed = torch.zeros(len(LossParts._fields)), 0
        for step, batch in enumerate(loader, first + 1):
            sums, summed = sums + self._step(batch, step).cpu(), summed + 1
            if log is None:
                continue
            log.advance()
            if step % config.log_every == 0:
                means = (sums / summed).tolist()
                log.write(step, {f"train/{name}": mean for name, mean in zip(LossParts._fields, means, strict=True)})
                sums, summed = torch.zeros_like(sums), 0
            if step % config.validate_every == 0 and self.pack.split("val"):
                log.write(step, self.validate())
                log.picture(step, sample_grid(self._averaged(), self._sampler("val", 7)(0)))
            if self.scorer is not None and step % config.score_every == 0:
                log.write(step, self.score(step))
            if step == config.steps or (step % config.save_every == 0 and not self.guard.suspicious):
                self.save(step)
        if log is not None:
            log.close()
        self.accelerator.wait_for_everyone()
        return self.run / "checkpoint"

    def _step(self, batch: Batch, step: int) -> Tensor:
        """One optimizer step; returns the parts of the loss, averaged over the processes, in their order.

        Raises:
            NumericsError: the loss or a gradient is not finite in any process, or the loss has diverged.
        """
        accelerator, device = self.accelerator, self.accelerator.device
        stream = (self.config.seed * 1_000_003 + step) * STREAMS + accelerator.process_index
        generator = torch.Generator().manual_seed(stream)
        torch.manual_seed(stream + STREAMS // 2)  # BERT's dropout draws from the global generator
        tensors = {name: torch.as_tensor(value).to(device) for name, value in batch.items()}
        if self.text is not None:
            tensors["token_states"] = self.text(tensors["token_ids"], tensors["token_mask"])
        sigma = self.noise.draw(len(tensors["state"]), generator).to(device)
        noise = torch.randn(tensors["state"].shape, generator=generator).to(device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(step, self.done_before)
        parts: LossParts = self.objective(tensors, sigma, noise)
        means: Tensor = accelerator.reduce(torch.stack([part.detach() for part in parts]), "mean")
        if self.config.crops_at(step) != self.config.crops_at(step - 1):
            self.guard.began_anew()
        self._stop_at(step, self.guard.finding(means[0].item()))
        accelerator.backward(parts.total)
        norm = accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        # A float16 loss scaler meets infinite gradients by design, skips the step and lowers its scale.
        if accelerator.scaler is None and norm is not None and not torch.isfinite(norm):
            self._stop_at(step, f"the norm of the gradients is {norm.item()}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for average in (self.ema, *self.also):
            average.update(self.model, step + self.done_before)
        return means

    def _stop_at(self, step: int, finding: str | None) -> None:
        if finding is None:
            return
        last = self.run / "checkpoint"
        raise NumericsError(
            f"{finding} at step {step}",
            note=f"the last good checkpoint is kept in {last}",
            hint=f"go on from it with a lower learning rate, in a new folder: --init {last} --learning-rate ... "
            "(or --spike-factor 0 to go on regardless)",
        )

    def _averaged(self) -> MSDM:
        averaged = MSDM(self.start.info.model).to(self.accelerator.device)
        averaged.load_state_dict(self.ema.weights)
        return averaged.eval()

    def validate(self) -> dict[str, float]:
        """Losses of the averaged weights."""
        return validation_losses(self._averaged(), self._sampler("val", 99), self.noise)

    def score(self, step: int) -> dict[str, float]:
        """Samples from the averaged weights and scores them; keeps ``checkpoint-best``."""
        assert self.scorer is not None
        score = self.scorer(self._averaged())
        best = self.run / "checkpoint-best"
        if self.scorer.beats(score, best):
            info = self._info(step, score=score.to_json())
            write_checkpoint(best, info, self.ema.weights, self.tokenizer_file, None)
        return {f"score/{name}": value for name, value in score.to_json().items()}

    def save(self, step: int) -> None:
        """Writes the checkpoint of this step over the last one, atomically."""
        state = training_tensors(self.model, self.optimizer, self.accelerator.scaler)
        state.update(tensors_of_averages(self.also))
        write_checkpoint(self.run / "checkpoint", self._info(step), self.ema.weights, self.tokenizer_file, state)

    def _info(self, step: int, **more: Any) -> CheckpointInfo:
        training = {**self.start.info.training, "config": self.config.to_json(), "run_step": step, **more}
        return replace(self.start.info, step=step + self.done_before, training=training)


__all__ = ["FitConfig", "Trainer", "fit", "open_trainer"]

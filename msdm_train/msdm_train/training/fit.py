"""``msdm-train fit``: the training loop.

Crops, dropped conditions, noise levels and noise are functions of (seed, step, rank). A run that was killed
therefore goes on with the same losses from its last checkpoint, without any saved sampler state.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.errors import InputError, NumericsError, RequestError
from msdm_train.data.batches import Augment, Batch, ConditionDropout, CropSampler
from msdm_train.data.pack import Pack
from msdm_train.data.vocabulary import train_tokenizer
from msdm_train.model.config import ModelConfig, preset
from msdm_train.model.msdm import MSDM
from msdm_train.training.checkpoint import (
    CheckpointInfo,
    read_info,
    read_tensors,
    restore_training,
    training_tensors,
    write_checkpoint,
)
from msdm_train.training.ema import PowerEma
from msdm_train.training.grid import sample_grid
from msdm_train.training.loss import Noise, edm_loss


@dataclass(frozen=True)
class FitConfig:
    """Settings of one run.

    Args:
        steps: optimizer steps of this run.
        batch: crops a step and process.
        crop_px: side of the square crops; a multiple of the model's stride.
        learning_rate: peak of Adam's rate; warmed up over ``warmup_steps``, then falling as
            1 / sqrt(step / ``decay_after_steps``) (EDM2, equation 67), and linearly to zero over the last
            ``cooldown_share`` of the run.
        ema_gamma: see :class:`~msdm_train.training.ema.PowerEma`.
        save_every, log_every, validate_every: steps.
        mixed_precision: ``no``, ``bf16`` or ``fp16`` (accelerate).
    """

    steps: int
    batch: int = 16
    crop_px: int = 64
    learning_rate: float = 1.2e-3
    warmup_steps: int = 200
    decay_after_steps: int = 3000
    cooldown_share: float = 0.15
    ema_gamma: float = 6.94
    seed: int = 0
    save_every: int = 500
    log_every: int = 20
    validate_every: int = 500
    mixed_precision: str = "no"
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "crop_px", "warmup_steps", "save_every", "log_every", "validate_every"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}", note="at least 1")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise RequestError(f"mixed precision '{self.mixed_precision}'", note="legal: no, bf16, fp16")

    def rate(self, step: int, done_before: int) -> float:
        """Learning rate of step 1, 2, ...; ``done_before`` steps were made by runs that this one goes on from."""
        decay = math.sqrt(max((step + done_before) / self.decay_after_steps, 1))
        left = (self.steps - step + 1) / max(self.cooldown_share * self.steps, 1)
        return self.learning_rate * min(step / self.warmup_steps, 1) * min(left, 1) / decay


def fit(pack_path: Path, run: Path, config: FitConfig, *, model: str = "small", init: Path | None = None) -> Path:
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
        NumericsError: the loss is not finite; the last good checkpoint is kept.
    """
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=not torch.cuda.is_available())
    pack = Pack(pack_path)
    start = _start(pack, run, config, model, init)
    if config.crop_px % start.info.model.stride:
        raise RequestError(f"crop_px {config.crop_px}", note=f"a multiple of {start.info.model.stride} for this model")
    trainer = Trainer(accelerator, pack, run, config, start)
    return trainer.run_to_end()


@dataclass
class Start:
    """Where a run begins: its configuration, first step, and weights if there are any."""

    info: CheckpointInfo
    step: int
    weights: dict[str, Tensor] | None
    training: dict[str, Tensor] | None
    tokenizer: Path


def _start(pack: Pack, run: Path, config: FitConfig, model: str, init: Path | None) -> Start:
    run.mkdir(parents=True, exist_ok=True)
    last = run / "checkpoint"
    data = {
        "name": pack.info.name,
        "licence": pack.info.licence,
        "source": pack.info.source,
        "statistics": pack.info.statistics,
        "trained_on_fields": [field.id for field in pack.split("train")],
    }
    if (last / "checkpoint.json").exists():
        info = read_info(last)
        began = {k: v for k, v in info.training["config"].items() if k != "steps"}
        wanted = {k: v for k, v in asdict(config).items() if k != "steps"}
        if began != wanted:
            changed = ", ".join(f"{k}: {began.get(k)} -> {v}" for k, v in wanted.items() if began.get(k) != v)
            raise RequestError(
                f"{run} was begun with other settings ({changed})",
                hint="use the same settings to resume, or another folder with --init to start from its checkpoint",
            )
        tensors = read_tensors(last / "training.safetensors")
        weights = read_tensors(last / "model.safetensors")
        return Start(info, info.training["run_step"], weights, tensors, last / "tokenizer.json")
    tokenizer = run / "tokenizer.json"
    if init is not None:
        info = read_info(init)
        weights = read_tensors(init / "model.safetensors")
        tokenizer.write_bytes((init / "tokenizer.json").read_bytes())
        history = info.training.get("history", []) + [info.training["config"] | {"steps": info.training["run_step"]}]
        training = {"config": asdict(config), "run_step": 0, "history": history}
        return Start(replace(info, data=data, training=training), 0, weights, None, tokenizer)
    model_config = preset(model)
    statistics = pack.info.statistics
    model_config = replace(
        model_config,
        state_mean=tuple(statistics["state_mean"]),
        state_std=tuple(statistics["state_std"]),
    )
    train_tokenizer(pack, model_config.text.vocabulary, tokenizer)
    training = {"config": asdict(config), "run_step": 0, "history": []}
    return Start(CheckpointInfo(0, model_config, data, training), 0, None, None, tokenizer)


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

    def __init__(self, accelerator: Accelerator, pack: Pack, run: Path, config: FitConfig, start: Start) -> None:
        self.accelerator, self.run, self.config, self.start, self.pack = accelerator, run, config, start, pack
        torch.manual_seed(config.seed)
        self.model = MSDM(start.info.model)
        if start.weights is not None:
            self.model.load_state_dict(start.weights)
        if start.training is not None:
            self.model.load_state_dict({k[6:]: v for k, v in start.training.items() if k.startswith("model.")})
        self.model.to(accelerator.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01
        )
        if start.training is not None:
            restore_training(start.training, self.model, self.optimizer)
        self.ema = PowerEma(self.model, config.ema_gamma)
        if start.weights is not None:
            self.ema.weights = {k: v.to(accelerator.device) for k, v in start.weights.items()}
        self.tokenizer = TextTokenizer(start.tokenizer, start.info.model.text_tokens)
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
        config, accelerator = self.config, self.accelerator
        sampler = self._sampler("train", config.seed, augment=Augment(), dropout=ConditionDropout())
        loader = DataLoader(
            _Steps(sampler, self.start.step, config.steps - self.start.step),
            batch_size=None,
            num_workers=config.workers,
        )
        wrapped = accelerator.prepare_model(self.model)
        main = accelerator.is_main_process
        writer = SummaryWriter(str(self.run / "tensorboard")) if main else None
        progress = tqdm(total=config.steps, initial=self.start.step, unit="step", disable=not main, mininterval=5)
        began = time.monotonic()
        sums = torch.zeros(3)
        for step, batch in zip(self._step_numbers(), loader, strict=True):
            parts = self._step(wrapped, batch, step)
            sums += torch.stack([parts.total.detach(), parts.image, parts.maps]).cpu()
            progress.update()
            if step % config.log_every == 0 and writer:
                means = dict(zip(("total", "image", "maps"), (sums / config.log_every).tolist(), strict=True))
                progress.set_postfix(loss=f"{means['total']:.4f}")
                self._log(writer, step, {f"train/{k}": v for k, v in means.items()}, time.monotonic() - began)
                sums.zero_()
            if step % config.validate_every == 0 and writer:
                self._log(writer, step, self.validate(), time.monotonic() - began)
                writer.add_image("samples", sample_grid(self._averaged(), self._sampler("val", 7)(0)), step)
            if (step % config.save_every == 0 or step == config.steps) and main:
                self.save(step)
        progress.close()
        if writer:
            writer.close()
        return self.run / "checkpoint"

    def _step_numbers(self) -> Iterator[int]:
        return iter(range(self.start.step + 1, self.config.steps + 1))

    def _step(self, wrapped: torch.nn.Module, batch: Batch, step: int) -> Any:
        """One optimizer step; refuses a loss that is not finite."""
        generator = torch.Generator().manual_seed(
            (self.config.seed * 1_000_003 + step) * 4096 + self.accelerator.process_index
        )
        sigma = self.noise.draw(self.config.batch, generator)
        tensors = {name: torch.as_tensor(value).to(self.accelerator.device) for name, value in batch.items()}
        noise = torch.randn(tensors["state"].shape, generator=generator).to(self.accelerator.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(step, self.done_before)
        with self.accelerator.autocast():
            parts = edm_loss(self.accelerator.unwrap_model(wrapped), tensors, sigma.to(noise.device), noise)
        if not torch.isfinite(parts.total):
            raise NumericsError(
                f"the loss is {parts.total.item()} at step {step}",
                note=f"the last good checkpoint is kept in {self.run / 'checkpoint'}",
                hint="resume with a lower learning rate in a new folder: --init that checkpoint",
            )
        self.accelerator.backward(parts.total)
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model, step + self.done_before)
        return parts

    def _averaged(self) -> MSDM:
        averaged = MSDM(self.start.info.model).to(self.accelerator.device)
        averaged.load_state_dict(self.ema.weights)
        return averaged.eval()

    @torch.no_grad()
    def validate(self, batches: int = 6) -> dict[str, float]:
        """Loss of the averaged weights on fixed crops and noise of ``val``: with all conditions, and without maps."""
        if not self.pack.split("val"):
            return {}
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

    def _log(self, writer: SummaryWriter, step: int, values: dict[str, float], seconds: float) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        with (self.run / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": step, "seconds": round(seconds, 1), **values}) + "\n")

    def save(self, step: int) -> None:
        """Writes the checkpoint of this step over the last one, atomically."""
        training = {**self.start.info.training, "config": asdict(self.config), "run_step": step}
        info = replace(self.start.info, step=step + self.done_before, training=training)
        state = training_tensors(self.model, self.optimizer)
        write_checkpoint(self.run / "checkpoint", info, self.ema.weights, self.start.tokenizer, state)


__all__ = ["FitConfig", "InputError", "ModelConfig", "fit"]

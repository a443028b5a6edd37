"""What a run will need: memory by counting, time by trying a few steps. Both are estimates and say so."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from msdm_engine.conditions.metadata import TextTokenizer
from msdm_train.cost import training_batch
from msdm_train.data.batches import CropSampler
from msdm_train.data.pack import Pack
from msdm_train.model.config import ModelConfig
from msdm_train.model.msdm import MSDM
from msdm_train.training.config import FitConfig
from msdm_train.training.loss import edm_loss
from msdm_train.training.start import Start

PROBE_STEPS = 2


@dataclass(frozen=True)
class Memory:
    """Bytes of one process while it trains.

    Args:
        weights, gradients, optimizer: float32, and Adam's two moments.
        averages: the power-function averages.
        activations: all tensors that autograd keeps for the backward pass of the largest batch of the run, each
            storage once, weights left out, counted on tensors without data. What a kernel needs beside them, and
            the data's own pages, are not in it.
    """

    weights: int
    gradients: int
    optimizer: int
    averages: int
    activations: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.gradients + self.optimizer + self.averages + self.activations


def memory_of(model: ModelConfig, config: FitConfig) -> Memory:
    """Counts; computes nothing and allocates nothing."""
    with torch.device("meta"):
        network = MSDM(model)
    weights = sum(p.numel() * 4 for p in network.parameters())
    frozen = bool(config.text_encoder) and not config.tune_text_encoder
    trained = weights - sum(p.numel() * 4 for p in network.text_encoder.parameters()) * frozen
    kept = max(activation_bytes(model, batch, crop, config.mixed_precision) for crop, batch in config.all_crops())
    return Memory(weights, trained, 2 * trained, weights * (1 + len(config.ema_also)), kept)


def activation_bytes(model: ModelConfig, batch: int, crop_px: int, mixed_precision: str) -> int:
    """Bytes that autograd keeps between forward and backward; see :class:`Memory`."""
    kept: dict[int, int] = {}
    held: list[Tensor] = []  # so that no number of a storage is used again

    def keep(tensor: Tensor) -> Tensor:
        held.append(tensor)
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mixed_precision)
    with FakeTensorMode():
        network, tensors, sigma = training_batch(model, batch, crop_px)
        own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
        with saved_tensors_hooks(keep, lambda x: x), torch.autocast("cpu", half) if half else nullcontext():
            edm_loss(network, tensors, sigma, tensors["state"])
    return sum(size for number, size in kept.items() if number not in own)


def seconds_a_step(pack: Pack, start: Start, config: FitConfig, *, steps: int = PROBE_STEPS) -> list[float]:
    """Median-ready wall seconds of a step for each (crop, batch) of the run, on this machine as it is now.

    One step to warm up, then the fastest of ``steps``: data, forward and backward in the run's precision; the
    optimizer is left out (a few per cent), and so are validation and checkpoints. One process.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = MSDM(start.info.model).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tokenizer = TextTokenizer(start.tokenizer.encode(), start.info.model.text_tokens)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.mixed_precision)
    found = []
    for crop_px, batch in config.all_crops():
        options: dict[str, Any] = {"augment": config.augment(), "dropout": config.dropout(), "seed": config.seed}
        sampler = CropSampler(pack, "train", crop_px=crop_px, batch=batch, tokenizer=tokenizer, **options)
        times = []
        for step in range(1 + steps):
            began = time.perf_counter()
            tensors = {name: torch.as_tensor(value).to(device) for name, value in sampler(step).items()}
            sigma = config.noise().draw(batch, torch.Generator().manual_seed(step)).to(device)
            with torch.autocast(device.type, half) if half else nullcontext():
                loss = edm_loss(model, tensors, sigma, torch.randn_like(tensors["state"])).total
            loss.backward()
            loss.item()  # waits for the device
            times.append(time.perf_counter() - began)
        found.append(min(times[1:]))
    return found


def run_seconds(config: FitConfig, step_seconds: list[float], done: int = 0) -> float:
    """Seconds of the steps that are left, from those of a step for each of ``config.all_crops()``."""
    each = dict(zip(config.all_crops(), step_seconds, strict=True))
    ends, end = [], 0
    for part in config.curriculum:
        end += part.steps
        ends.append(((part.crop_px, part.batch), end))
    total, before = 0.0, 0
    for crops, end in [*ends, ((config.crop_px, config.batch), config.steps)]:
        total += each[crops] * max(0, min(end, config.steps) - max(before, done))
        before = max(before, end)
    return total

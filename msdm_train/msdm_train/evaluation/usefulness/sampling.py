"""Pairs from a checkpoint, without exporting it first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.pairs import Pair, PairRequest
from msdm_engine.sampling.noise import gaussian
from msdm_engine.sampling.sampler import sample
from msdm_train.model.msdm import MSDM
from msdm_train.training.checkpoint import load_model, settled


def pairs_from_checkpoint(
    checkpoint: Path, requests: Sequence[PairRequest], table: np.ndarray, *, batch: int
) -> Iterator[Pair]:
    """One pair for each request with a mask, in order, all of one size that is a multiple of the model's stride.

    Noise and the trajectory are the engine's; only the network runs in PyTorch.

    Args:
        table: of a solver, see :func:`msdm_engine.sampling.schedule.solver_table`.
    """
    model, info = load_model(checkpoint)
    tokenizer = TextTokenizer(settled(checkpoint) / "tokenizer.json", info.model.text_tokens)
    for start in range(0, len(requests), batch):
        yield from _batch(model, tokenizer, table, requests[start : start + batch])


@torch.no_grad()
def _batch(model: MSDM, tokenizer: TextTokenizer, table: np.ndarray, requests: Sequence[PairRequest]) -> list[Pair]:
    context = model.context({name: torch.as_tensor(value) for name, value in _conditions(tokenizer, requests).items()})

    def denoise(x: np.ndarray, d_prev: np.ndarray, row: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d = model(torch.as_tensor(x), torch.as_tensor(row[:1]), context).numpy()
        return row[1] * x + row[2] * d + row[3] * d_prev + row[4] * z, d

    def noise(step: int) -> np.ndarray:
        channels = model.config.state_channels
        return np.stack([gaussian(r.seed, r.index, step, channels, r.height_px, r.width_px) for r in requests])

    state = sample(denoise, table, noise)
    images = np.clip(np.rint((state[:, :3] + 1) * 127.5), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return [Pair(r, image, _mask(r).astype(np.uint16)) for r, image in zip(requests, images, strict=True)]


def _conditions(tokenizer: TextTokenizer, requests: Sequence[PairRequest]) -> dict[str, np.ndarray]:
    colours = [request.colour.features() for request in requests]
    texts = [tokenizer.encode(request.metadata.text()) for request in requests]
    return {
        "maps": np.stack([maps_from_instances(_mask(request)) for request in requests]).astype(np.float32),
        "maps_present": np.ones((len(requests), 1), np.float32),
        "colour": np.stack([features for features, _ in colours]),
        "colour_present": np.stack([present for _, present in colours]),
        "token_ids": np.stack([ids for ids, _ in texts]),
        "token_mask": np.stack([mask for _, mask in texts]),
    }


def _mask(request: PairRequest) -> np.ndarray:
    assert request.instances is not None  # every request of a synthetic set has a layout
    return request.instances

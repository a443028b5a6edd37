"""The plain sampler around a backend: what the pipeline is tested against."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from msdm_engine import Bundle, Engine, PairRequest
from msdm_engine.bundle.manifest import Sampling
from msdm_engine.conditions.decode import instances_from_maps
from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.contract import CONDITIONER, DENOISER, DENOISER_INPUTS, TEXT_ENCODER
from msdm_engine.pipeline.padding import Padding
from msdm_engine.sampling.guidance import WITHOUT, Guidance, without
from msdm_engine.sampling.noise import gaussian, step_of_attempt
from msdm_engine.sampling.sampler import sample

ROOT = Path(__file__).resolve().parents[3]
Plain = Callable[..., list[tuple[np.ndarray, np.ndarray]]]


def plain_batch(
    engine: Engine, requests: Sequence[PairRequest], sampling: Sampling, guidance: Guidance
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Picture and mask of each request of one batch, by `sampler.sample` and `Backend.run` alone."""
    run, manifest = engine.backend.run, engine.bundle.manifest
    filled = [*requests, *[requests[-1]] * (sampling.batch - len(requests))]
    padding = Padding.of(requests[0].height_px, requests[0].width_px, manifest.stride)
    given = [conditions(engine, request, padding) for request in filled]
    stacked = {name: np.stack([one[name] for one in given]) for name in given[0]}
    branches = guidance.branches()
    # Each branch that depends on no request is a run of its own, as its conditions are kept.
    own = [name for name, _ in branches if len(branches) == 1 or name != "none"]
    folded = [without(stacked, WITHOUT[name]) for name in own]
    contexts = run(CONDITIONER, {name: np.concatenate([one[name] for one in folded]) for name in stacked})
    if len(own) < len(branches):
        nothing = run(CONDITIONER, {name: np.zeros_like(value) for name, value in stacked.items()})
        contexts = {name: np.concatenate([value, nothing[name]]) for name, value in contexts.items()}
    contexts = {name: v.reshape(len(branches), len(filled), *v.shape[1:]) for name, v in contexts.items()}
    weights = np.array([[weight] * len(filled) for _, weight in branches], np.float32)
    alone = {name: value[:1] for name, value in contexts.items()}, np.ones((1, len(filled)), np.float32)

    def denoise(x: np.ndarray, d_prev: np.ndarray, row: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        context, weight = (contexts, weights) if guidance.acts_at(float(row[0])) else alone
        out = run(DENOISER, {**dict(zip(DENOISER_INPUTS, (x, d_prev, z, row, weight), strict=True)), **context})
        return out["state_next"], out["denoised"]

    def noise(step: int) -> np.ndarray:
        keys = [(request.seed, request.index, step_of_attempt(request.attempt, step)) for request in filled]
        return np.stack([gaussian(*key, manifest.state_channels, *padding.shape) for key in keys])

    final = sample(denoise, sampling.table(), noise)[:, :, : padding.height, : padding.width]
    return [picture_and_mask(request, state) for request, state in zip(requests, final, strict=False)]


def conditions(engine: Engine, request: PairRequest, padding: Padding) -> dict[str, np.ndarray]:
    """Inputs of the conditioner for one pair."""
    maps = np.zeros((3, *padding.shape), np.float32)
    if request.instances is not None:
        maps = maps_from_instances(padding.grow(request.instances))
    colour, colour_present = request.colour.features()
    ids, mask = engine.tokenizer.encode(request.metadata.text())
    states = engine.backend.run(TEXT_ENCODER, {"token_ids": ids[None], "token_mask": mask[None]})["token_states"][0]
    present = np.array([request.instances is not None], np.float32)
    return {
        "maps": maps,
        "maps_present": present,
        "colour": colour,
        "colour_present": colour_present,
        "token_states": states,
        "token_mask": mask,
    }


def picture_and_mask(request: PairRequest, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounded to 8 bits; a mask that nobody gave is decoded."""
    picture = np.clip(np.rint((state[:3].transpose(1, 2, 0) + 1) * 127.5), 0, 255).astype(np.uint8)
    mask = request.instances
    return picture, instances_from_maps(np.clip(state[3:6], -1, 1)) if mask is None else mask


@pytest.fixture(scope="session")
def plain() -> Plain:
    """``plain(engine, requests, sampling, guidance)``: all requests, of one size, batch by batch."""

    def pairs(
        engine: Engine, requests: Sequence[PairRequest], sampling: Sampling, guidance: Guidance
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        starts = range(0, len(requests), sampling.batch)
        batches = [requests[at : at + sampling.batch] for at in starts]
        return [pair for batch in batches for pair in plain_batch(engine, batch, sampling, guidance)]

    return pairs


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose graphs ONNX Runtime runs in microseconds."""
    pytest.importorskip("onnxruntime", reason="needs the extra cpu or gpu")
    pytest.importorskip("onnx", reason="the bundle is made with onnx, which the export extra brings")
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    subprocess.run([sys.executable, "-m", "benchmarks.tiny_bundle", str(folder)], cwd=ROOT, check=True)
    return Bundle.open(folder)


@pytest.fixture
def tiny_engine(tiny: Bundle) -> Iterator[Engine]:
    with Engine.open(tiny, threads=1) as engine:
        yield engine

"""Real conditions and real trajectories: the one source of inputs on which graphs are compared and measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from msdm_engine.bundle.manifest import Preset
from msdm_engine.conditions.maps import class_maps_from_instances, maps_from_instances
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.contract import (
    CONDITIONER,
    CONDITIONER_INPUTS,
    CRITIC,
    CRITIC_INPUTS,
    DENOISER,
    DENOISER_INPUTS,
    DENOISER_OUTPUTS,
    IMAGE_CHANNELS,
    TEXT_ENCODER,
    TEXT_ENCODER_INPUTS,
    TEXT_ENCODER_OUTPUTS,
)
from msdm_engine.critic import image_from_pictures
from msdm_engine.layouts import LayoutRequest, draw_layout
from msdm_engine.sampling.guidance import WITHOUT, without
from msdm_engine.sampling.noise import gaussian
from msdm_engine.sampling.sampler import trajectory
from msdm_train.data.pack import Pack

Arrays = dict[str, np.ndarray]
Run = Callable[[str, Arrays], Arrays]

#: Guidance branches in the order in which a case takes them; weights that sum to one, as guidance has them.
BRANCHES = tuple(WITHOUT)
WEIGHTS = {1: (1.0,), 2: (1.5, -0.5), 3: (1.8, -0.5, -0.3)}


@dataclass(frozen=True)
class Size:
    """Height and width in pixels, samples, guidance branches (1 to 3)."""

    height_px: int
    width_px: int
    samples: int
    branches: int

    def __str__(self) -> str:
        return f"{self.width_px} x {self.height_px} px, {self.samples} sample(s), {self.branches} branch(es)"


#: Square and not, from half of the size that the reference bundle is trained at to twice, several batches.
SIZES = (Size(64, 64, 1, 1), Size(128, 128, 3, 1), Size(96, 160, 2, 2), Size(256, 192, 1, 3))


@dataclass(frozen=True)
class Case:
    """Inputs of one case: those of text encoder and conditioner as [GB, ...], and the seed of its noise.

    Args:
        judged: whether the bundle has a critic, which sees the finished picture.
    """

    size: Size
    text: Arrays
    conditions: Arrays
    channels: int
    seed: int
    judged: bool = False

    def noise(self, step: int) -> np.ndarray:
        """Noise of a step as the engine draws it: [B, C, H, W] float32."""
        shape = (self.channels, self.size.height_px, self.size.width_px)
        return np.stack([gaussian(self.seed, i, step, *shape) for i in range(self.size.samples)])


@dataclass(frozen=True)
class Visit:
    """One run of one graph: what went in, what came out, and at which noise level (None before the first step)."""

    graph: str
    sigma: float | None
    inputs: Arrays
    outputs: Arrays


class Conditions:
    """Masks of a pack (``val``) or drawn layouts, with colours and texts of the presets; one sample has no text."""

    def __init__(
        self,
        presets: dict[str, Preset],
        tokenizer: TextTokenizer,
        channels: int,
        n_classes: int,
        pack: Pack | None,
        *,
        judged: bool = False,
    ) -> None:
        self.presets, self.tokenizer, self.pack = list(presets.values()), tokenizer, pack
        self.channels, self.n_classes, self.judged = channels, n_classes, judged
        self.source = f"masks of {pack.info.name} (val)" if pack else "drawn layouts"

    def cases(self, sizes: Sequence[Size] = SIZES) -> Iterator[Case]:
        """One case for each size; the last sample of the last size has an empty text."""
        for seed, size in enumerate(sizes):
            empty = len(sizes) - 1 == seed
            yield self._case(size, seed, empty)

    def _case(self, size: Size, seed: int, empty: bool) -> Case:
        chosen = [self.presets[(seed + k) % len(self.presets)] for k in range(size.samples)]
        colour = [preset.colour.features() for preset in chosen]
        texts = [preset.description for preset in chosen]
        if empty:
            texts[-1] = ""
        tokens = [self.tokenizer.encode(text) for text in texts]
        given = {
            "maps": np.stack([self._maps(k, size) for k in range(size.samples)]),
            "maps_present": np.ones((size.samples, 1), np.float32),
            "colour": np.stack([c[0] for c in colour]),
            "colour_present": np.stack([c[1] for c in colour]),
            "token_mask": np.stack([t[1] for t in tokens]),
        }
        branches = [without(given, WITHOUT[name]) for name in BRANCHES[: size.branches]]
        folded = {name: np.concatenate([branch[name] for branch in branches]) for name in given}
        ids = np.stack([t[0] for t in tokens] * size.branches)
        text = dict(zip(TEXT_ENCODER_INPUTS, (ids, np.concatenate([given["token_mask"]] * size.branches)), strict=True))
        return Case(size, text, folded, self.channels, seed, self.judged)

    def _maps(self, index: int, size: Size) -> np.ndarray:
        mask = self._mask(index, size.height_px, size.width_px)
        maps = maps_from_instances(mask)
        if not self.n_classes:
            return maps
        classes = {int(label): int(label) % self.n_classes for label in np.unique(mask) if label}
        return np.concatenate([maps, class_maps_from_instances(mask, classes, self.n_classes)])

    def _mask(self, index: int, height: int, width: int) -> np.ndarray:
        if self.pack and self.pack.split("val"):
            fields = [f for f in self.pack.split("val") if f.height_px >= height and f.width_px >= width]
            if fields:
                return self.pack.window(fields[index % len(fields)].id, 0, 0, height, width)[1]
        return draw_layout(LayoutRequest("round", height_px=height, width_px=width, seed=index))


def context_of(run: Run, case: Case) -> Iterator[Visit]:
    """Runs text encoder and conditioner; the second visit's outputs are the denoiser's conditions, [GB, ...]."""
    states = run(TEXT_ENCODER, case.text)
    yield Visit(TEXT_ENCODER, None, case.text, states)
    given = case.conditions | {name: states[name] for name in TEXT_ENCODER_OUTPUTS}
    given = {name: given[name] for name in CONDITIONER_INPUTS}
    yield Visit(CONDITIONER, None, given, run(CONDITIONER, given))


def walk(run: Run, case: Case, table: np.ndarray) -> Iterator[Visit]:
    """Runs all graphs along one trajectory as the engine does; one visit for each run of a graph, the critic's last.

    Args:
        run: graph and inputs -> outputs.
        table: [N, 5] rows of a solver (:mod:`msdm_engine.sampling.schedule`).
    """
    context: Arrays = {}
    for visit in context_of(run, case):
        context = visit.outputs
        yield visit
    g, b = case.size.branches, case.size.samples
    folded = {name: value.reshape(g, b, *value.shape[1:]) for name, value in context.items()}
    guidance = np.repeat(np.array(WEIGHTS[g], np.float32)[:, None], b, 1)
    visits: list[Visit] = []

    def denoise(x: np.ndarray, d_prev: np.ndarray, row: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs = dict(zip(DENOISER_INPUTS, (x, d_prev, z, row, guidance), strict=True)) | folded
        outputs = run(DENOISER, inputs)
        visits.append(Visit(DENOISER, float(row[0]), inputs, outputs))
        following, denoised = (outputs[name] for name in DENOISER_OUTPUTS)
        return following, denoised

    final = np.empty(0)
    for final, _ in trajectory(denoise, table, case.noise):  # noqa: B007 (the last state is read below)
        yield visits.pop()
    if case.judged:
        image = dict(zip(CRITIC_INPUTS, (image_from_pictures(pictures_of(final)),), strict=True))
        yield Visit(CRITIC, None, image, run(CRITIC, image))


def pictures_of(state: np.ndarray) -> np.ndarray:
    """RGB of states [B, C, H, W] as the engine writes it: [B, H, W, 3] uint8; what is not finite is grey."""
    rgb = np.clip(np.nan_to_num(state[:, : len(IMAGE_CHANNELS)]), -1, 1).transpose(0, 2, 3, 1)
    return np.rint((rgb + 1) * 127.5).astype(np.uint8)

"""The engine: a verified bundle, a backend, and pairs on demand.

>>> from msdm_engine import Engine, PairRequest
>>> with Engine.open() as engine:
...     pair = next(engine.sample([PairRequest(index=0, seed=1, height_px=128, width_px=128)]))
>>> pair.image.shape
(128, 128, 3)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from msdm_engine.backends import Backend, open_backend
from msdm_engine.bundle import TOKENIZER, Bundle
from msdm_engine.conditions.decode import instances_from_maps
from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.contract import (
    CONDITIONER,
    CONDITIONER_INPUTS,
    DENOISER,
    IMAGE_CHANNELS,
    MAP_CHANNELS,
    TEXT_ENCODER,
)
from msdm_engine.errors import NumericsError, RequestError
from msdm_engine.manifest import Sampling
from msdm_engine.noise import gaussian
from msdm_engine.pairs import Pair, PairRequest
from msdm_engine.sampler import sample
from msdm_engine.schedule import karras_sigmas, solver_table

MAX_PX = 4096


@dataclass(frozen=True)
class Padding:
    """A size grown to a multiple of the stride; pictures are cropped back to (height, width)."""

    height: int
    width: int
    rows: int
    columns: int

    @staticmethod
    def of(height: int, width: int, stride: int) -> Padding:
        """Pads at the bottom and at the right."""
        return Padding(height, width, -height % stride, -width % stride)

    def grow(self, instances: np.ndarray) -> np.ndarray:
        """Continues an instance map by reflection: [H, W] -> [H + rows, W + columns] int32.

        A reflected nucleus gets a label of its own: one label on both sides would move the centre of mass of the
        nucleus inside the picture.
        """
        grown = np.pad(instances.astype(np.int32), ((0, self.rows), (0, self.columns)), mode="symmetric")
        outside = np.ones(grown.shape, bool)
        outside[: self.height, : self.width] = False
        grown[outside & (grown > 0)] += int(instances.max())
        return grown

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width that the graphs see."""
        return self.height + self.rows, self.width + self.columns


class Engine:
    """Generates pairs; open with :meth:`open`, close with ``with``."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle, self.backend = bundle, backend
        self.tokenizer = TextTokenizer(bundle.folder / TOKENIZER, bundle.manifest.text_tokens)
        self._texts: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @staticmethod
    def open(bundle: Path | str | Bundle | None = None, *, backend: str = "onnxruntime", threads: int = 0) -> Engine:
        """Opens a bundle on a backend.

        Args:
            bundle: folder of the bundle or an opened one; None is the reference bundle that ships with msdm.
            backend: see :data:`msdm_engine.backends.BACKENDS`.
            threads: CPU threads; 0 is one for each core. Pixels are bit-equal for equal threads only.

        Raises:
            BundleError, BackendError, RequestError.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        return Engine(opened, open_backend(backend, opened, threads=threads))

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the backend."""
        self.backend.close()

    def sampling(self, *, steps: int | None = None, solver: str | None = None, batch: int | None = None) -> Sampling:
        """The bundle's sampling defaults with changes; out of range is a RequestError."""
        default = self.bundle.manifest.sampling
        changed = replace(default, steps=steps or default.steps, solver=solver or default.solver,
                          batch=batch or default.batch)  # fmt: skip
        if not 1 <= changed.batch <= 1024:
            raise RequestError(f"batch {changed.batch}", note="1 to 1024")
        self._table(changed)
        return changed

    @staticmethod
    def _table(sampling: Sampling) -> np.ndarray:
        sigmas = karras_sigmas(sampling.steps, sampling.sigma_min, sampling.sigma_max, sampling.rho)
        return solver_table(sampling.solver, sigmas)

    def sample(self, requests: Iterable[PairRequest], sampling: Sampling | None = None) -> Iterator[Pair]:
        """Generates one pair for each request, in their order.

        Consecutive requests of one size share a batch; a short batch is filled up to ``sampling.batch`` with
        copies of its last request, because the batch shape decides the last bits of a pixel.

        Raises:
            RequestError: a size out of range, or a text that is too long.
            NumericsError: a graph returned a value that is not finite.
        """
        sampling = sampling or self.bundle.manifest.sampling
        waiting: list[PairRequest] = []
        for request in requests:
            self._check(request)
            if waiting and (_size(waiting[0]) != _size(request) or len(waiting) == sampling.batch):
                yield from self._batch(waiting, sampling)
                waiting = []
            waiting.append(request)
        if waiting:
            yield from self._batch(waiting, sampling)

    def _check(self, request: PairRequest) -> None:
        if not all(16 <= side <= MAX_PX for side in _size(request)):
            raise RequestError(
                f"pair {request.index}: {request.height_px} x {request.width_px} px", note=f"16 to {MAX_PX} px a side"
            )

    def _batch(self, requests: Sequence[PairRequest], sampling: Sampling) -> Iterator[Pair]:
        manifest = self.bundle.manifest
        filled = [*requests, *[requests[-1]] * (sampling.batch - len(requests))]
        padding = Padding.of(*_size(requests[0]), manifest.stride)
        context = self._context(filled, padding)
        guidance = np.ones((1, len(filled)), np.float32)

        def denoise(x: np.ndarray, d_prev: np.ndarray, row: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            given = {"state": x, "denoised_prev": d_prev, "noise": z, "row": row, "guidance": guidance, **context}
            out = self.backend.run(DENOISER, given)
            return out["state_next"], out["denoised"]

        def noise(step: int) -> np.ndarray:
            return np.stack([gaussian(r.seed, r.index, step, manifest.state_channels, *padding.shape) for r in filled])

        final = sample(denoise, self._table(sampling), noise)
        for request, state in zip(requests, final, strict=False):
            yield _finish(request, state[:, : padding.height, : padding.width])

    def _context(self, requests: Sequence[PairRequest], padding: Padding) -> dict[str, np.ndarray]:
        """Runs the conditioner: its outputs as [1 branch, B, ...]."""
        maps, present = [], []
        for request in requests:
            given = request.instances is not None
            present.append([np.float32(given)])
            if request.instances is not None:
                maps.append(maps_from_instances(padding.grow(request.instances)))
            else:
                maps.append(
                    np.zeros((self.bundle.manifest.state_channels - len(IMAGE_CHANNELS), *padding.shape), np.float32)
                )
        colours = [request.colour.features() for request in requests]
        texts = [self._text(request.metadata.text()) for request in requests]
        values = (
            np.stack(maps),
            np.array(present, np.float32),
            np.stack([features for features, _ in colours]),
            np.stack([flags for _, flags in colours]),
            np.stack([states for states, _ in texts]),
            np.stack([mask for _, mask in texts]),
        )
        context = self.backend.run(CONDITIONER, dict(zip(CONDITIONER_INPUTS, values, strict=True)))
        return {name: value[None] for name, value in context.items()}

    def _text(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Token states and mask of a text; encoded once."""
        if text not in self._texts:
            ids, mask = self.tokenizer.encode(text)
            states = self.backend.run(TEXT_ENCODER, {"token_ids": ids[None], "token_mask": mask[None]})
            self._texts[text] = (states["token_states"][0], mask)
        return self._texts[text]


def _size(request: PairRequest) -> tuple[int, int]:
    return request.height_px, request.width_px


def _finish(request: PairRequest, state: np.ndarray) -> Pair:
    """State [C, H, W] -> picture and mask."""
    if not np.isfinite(state).all():
        raise NumericsError(
            f"pair {request.index} (seed {request.seed}) is not finite",
            note="the denoiser returned NaN or infinity",
            hint="check the bundle with `msdm-export verify`, or use more steps",
        )
    rgb = state[: len(IMAGE_CHANNELS)].transpose(1, 2, 0)
    image = np.clip(np.rint((rgb + 1) * 127.5), 0, 255).astype(np.uint8)
    instances = request.instances
    if instances is None:
        maps = state[len(IMAGE_CHANNELS) : len(IMAGE_CHANNELS) + len(MAP_CHANNELS)]
        instances = instances_from_maps(np.clip(maps, -1, 1)).astype(np.uint16)
    return Pair(request, image, instances)

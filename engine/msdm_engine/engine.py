"""The engine: a verified bundle, a backend, and pairs on demand.

>>> from msdm_engine import Engine, PairRequest
>>> with Engine.open() as engine:
...     pair = next(engine.sample([PairRequest(index=0, seed=1, height_px=128, width_px=128)]))
>>> pair.image.shape
(128, 128, 3)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from msdm_engine.backends import Backend, open_backend
from msdm_engine.bundle import Bundle
from msdm_engine.conditions.decode import instances_from_maps
from msdm_engine.conditions.maps import class_maps_from_instances, maps_from_instances
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.contract import (
    CONDITIONER,
    CONDITIONER_INPUTS,
    CRITIC,
    CRITIC_INPUTS,
    CRITIC_OUTPUTS,
    DENOISER,
    FLOAT32,
    IMAGE_CHANNELS,
    MAP_CHANNELS,
    TEXT_ENCODER,
)
from msdm_engine.critic import Seen, image_from_pictures
from msdm_engine.errors import BackendError, NumericsError, RequestError
from msdm_engine.guidance import WITHOUT, Guidance
from msdm_engine.manifest import Sampling
from msdm_engine.noise import gaussian, step_of_attempt
from msdm_engine.pairs import Pair, PairRequest
from msdm_engine.sampler import trajectory

#: Encoded texts kept; a set may have as many texts as pairs.
MAX_TEXTS = 1024


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

    def grow_pictures(self, pictures: np.ndarray) -> np.ndarray:
        """Continues pictures by reflection: [B, H, W, 3] -> [B, H + rows, W + columns, 3]."""
        return np.pad(pictures, ((0, 0), (0, self.rows), (0, self.columns), (0, 0)), mode="symmetric")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width that the graphs see."""
        return self.height + self.rows, self.width + self.columns


class Engine:
    """Generates pairs; open with :meth:`open`, close with ``with``."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle, self.backend = bundle, backend
        self.tokenizer = TextTokenizer(bundle.tokenizer, bundle.manifest.text_tokens)
        self._texts: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @staticmethod
    def open(
        bundle: Path | str | Bundle | None = None,
        *,
        backend: str = "onnxruntime",
        threads: int = 0,
        precision: str = FLOAT32,
    ) -> Engine:
        """Opens a bundle on a backend.

        Args:
            bundle: folder of the bundle or an opened one; None is the reference bundle that ships with msdm.
            backend: see :data:`msdm_engine.backends.BACKENDS`.
            threads: CPU threads; 0 is one for each core. Pixels are bit-equal for equal threads only.
            precision: of the graphs: ``float32``, or what `msdm-export precision` added to the bundle.

        Raises:
            BundleError, BackendError, RequestError.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        return Engine(opened, open_backend(backend, opened, threads=threads, precision=precision))

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the backend."""
        self.backend.close()

    def sample(
        self,
        requests: Iterable[PairRequest],
        sampling: Sampling | None = None,
        guidance: Guidance | None = None,
        *,
        critic: bool = True,
    ) -> Iterator[Pair]:
        """Generates one pair for each request, in their order.

        Consecutive requests of one size share a batch; a short batch is filled up to ``sampling.batch`` with
        copies of its last request, because the batch shape decides the last bits of a pixel.

        Args:
            sampling: solver, steps and batch; None: the bundle's own. Change it with
                ``engine.bundle.manifest.sampling.changed(steps=12)``.
            guidance: strengths and noise interval; None: the bundle's own.
            critic: show each finished batch to the bundle's critic, if it has one, for ``Pair.agreement``. It runs
                once a batch; images and masks are the same without it.

        Raises:
            RequestError: a text that is too long.
            NumericsError: a graph returned a value that is not finite.
            BackendError: a graph failed, or returned something else than the contract says.
        """
        sampling = sampling or self.bundle.manifest.sampling
        guidance = self.bundle.manifest.guidance if guidance is None else guidance
        critic = critic and CRITIC in self.bundle.manifest.graphs
        waiting: list[PairRequest] = []
        for request in requests:
            if waiting and _size(waiting[0]) != _size(request):
                yield from self._batch(waiting, sampling, guidance, critic)
                waiting = []
            waiting.append(request)
            if len(waiting) == sampling.batch:  # now, and not when the next request is there: it may be an error
                yield from self._batch(waiting, sampling, guidance, critic)
                waiting = []
        if waiting:
            yield from self._batch(waiting, sampling, guidance, critic)

    def _batch(
        self, requests: Sequence[PairRequest], sampling: Sampling, guidance: Guidance, critic: bool
    ) -> Iterator[Pair]:
        manifest = self.bundle.manifest
        filled = [*requests, *[requests[-1]] * (sampling.batch - len(requests))]
        padding = Padding.of(*_size(requests[0]), manifest.stride)
        branches = guidance.branches()
        contexts = self._contexts(filled, padding, [name for name, _ in branches])
        weights = np.array([[weight] * len(filled) for _, weight in branches], np.float32)
        # Rows outside the interval run the first branch ("all") alone, at weight one.
        alone = {name: value[:1] for name, value in contexts.items()}, np.ones((1, len(filled)), np.float32)

        def denoise(x: np.ndarray, d_prev: np.ndarray, row: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            context, weight = (contexts, weights) if guidance.acts_at(float(row[0])) else alone
            given = {"state": x, "denoised_prev": d_prev, "noise": z, "row": row, "guidance": weight, **context}
            out = self.backend.run(DENOISER, given)
            _check_shape(DENOISER, out, x.shape)
            return out["state_next"], out["denoised"]

        def noise(step: int) -> np.ndarray:
            return np.stack([self._noise(request, step, padding) for request in filled])

        table = sampling.table()
        final: np.ndarray = np.empty(0)
        for step, (final, denoised) in enumerate(trajectory(denoise, table, noise), start=1):
            where = f"step {step} of {len(table)} (noise level {table[step - 1, 0]:.4g})"
            _check_finite(DENOISER, (denoised, final), requests, where)
        pairs = [
            _finish(request, state[:, : padding.height, : padding.width])
            for request, state in zip(requests, final, strict=False)
        ]
        yield from self._judged(pairs, sampling.batch) if critic else pairs

    def _noise(self, request: PairRequest, step: int, padding: Padding) -> np.ndarray:
        key = request.seed, request.index, step_of_attempt(request.attempt, step)
        return gaussian(*key, self.bundle.manifest.state_channels, *padding.shape)

    def _judged(self, pairs: Sequence[Pair], batch: int) -> list[Pair]:
        """The pairs with what the critic sees in them; a short batch is filled up as for sampling."""
        assert self.bundle.manifest.critic is not None  # a bundle has graph and description, or neither
        padding = Padding.of(*_size(pairs[0].request), self.bundle.manifest.critic["stride"])
        pictures = np.stack([pair.image for pair in (*pairs, *[pairs[-1]] * (batch - len(pairs)))])
        (image,), (maps,) = CRITIC_INPUTS, CRITIC_OUTPUTS
        out = self.backend.run(CRITIC, {image: image_from_pictures(padding.grow_pictures(pictures))})
        _check_shape(CRITIC, out, (batch, len(MAP_CHANNELS), *padding.shape))
        _check_finite(CRITIC, out.values(), [pair.request for pair in pairs], "after the last step")
        seen = out[maps][:, :, : padding.height, : padding.width]
        return [replace(pair, seen=Seen(one, pair.instances)) for pair, one in zip(pairs, seen, strict=False)]

    def _contexts(
        self, requests: Sequence[PairRequest], padding: Padding, branches: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Runs the conditioner once over all branches: its outputs as [G, B, ...]."""
        given = [self._conditions(request, padding) for request in requests]
        stacked = {name: np.stack([conditions[name] for conditions in given]) for name in CONDITIONER_INPUTS}
        folded = [without(stacked, WITHOUT[branch]) for branch in branches]
        inputs = {name: np.concatenate([branch[name] for branch in folded]) for name in CONDITIONER_INPUTS}
        context = self.backend.run(CONDITIONER, inputs)
        _check_shape(CONDITIONER, context, (len(branches) * len(requests),))
        _check_finite(CONDITIONER, context.values(), [*requests] * len(branches), "before the first step")
        return {name: value.reshape(len(branches), len(requests), *value.shape[1:]) for name, value in context.items()}

    def _conditions(self, request: PairRequest, padding: Padding) -> dict[str, np.ndarray]:
        """Inputs of the conditioner for one pair, without the batch dimension."""
        channels = self.bundle.manifest.state_channels - len(IMAGE_CHANNELS)
        maps = np.zeros((channels, *padding.shape), np.float32)
        if request.instances is not None:
            maps = self._maps(request, padding.grow(request.instances), int(request.instances.max()))
        colour, colour_present = request.colour.features()
        states, mask = self._text(request)
        present = np.array([request.instances is not None], np.float32)
        return dict(zip(CONDITIONER_INPUTS, (maps, present, colour, colour_present, states, mask), strict=True))

    def _maps(self, request: PairRequest, grown: np.ndarray, last: int) -> np.ndarray:
        """Nuclear maps of the padded instance map, and class maps where the bundle has them.

        Args:
            last: largest label inside the picture; label ``last + i`` is the reflection of label i.
        """
        n_classes = self.bundle.manifest.n_classes
        if (request.classes is None) != (n_classes == 0):
            raise RequestError(
                f"pair {request.index}: classes are {'missing' if n_classes else 'given'}",
                note=f"this bundle has {n_classes or 'no'} nucleus classes",
            )
        maps = maps_from_instances(grown)
        if request.classes is None:
            return maps
        classes = {label + side: value for side in (0, last) for label, value in request.classes.items()}
        return np.concatenate([maps, class_maps_from_instances(grown, classes, n_classes)])

    def _text(self, request: PairRequest) -> tuple[np.ndarray, np.ndarray]:
        """Token states and mask of the request's text; encoded once."""
        text = request.metadata.text()
        if text not in self._texts:
            ids, mask = self.tokenizer.encode(text)
            states = self.backend.run(TEXT_ENCODER, {"token_ids": ids[None], "token_mask": mask[None]})
            _check_shape(TEXT_ENCODER, states, (1, len(ids)))
            _check_finite(TEXT_ENCODER, states.values(), [request], "before the first step")
            if len(self._texts) >= MAX_TEXTS:
                self._texts.pop(next(iter(self._texts)))  # the oldest
            self._texts[text] = (states["token_states"][0], mask)
        return self._texts[text]


def _size(request: PairRequest) -> tuple[int, int]:
    return request.height_px, request.width_px


def without(conditions: dict[str, np.ndarray], dropped: Collection[str]) -> dict[str, np.ndarray]:
    """Conditions of a guidance branch: those of the modalities in ``dropped`` become absent."""
    hidden = {"morphology": ("maps", "maps_present"), "colour": ("colour", "colour_present"), "text": ("token_mask",)}
    names = {name for modality in dropped for name in hidden[modality]}
    return {name: np.zeros_like(value) if name in names else value for name, value in conditions.items()}


def _check_shape(graph: str, outputs: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    """A bundle is untrusted: what a graph gives out are arrays of floats that begin with these dimensions.

    Those of denoiser and critic are known in full.
    """
    more = graph not in (DENOISER, CRITIC)
    for name, value in outputs.items():
        known = value.shape[: len(shape) if more else None] if isinstance(value, np.ndarray) else ()
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or known != shape:
            found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise BackendError(
                f"graph '{graph}' gave {found} as '{name}'",
                note=f"floats of the shape {shape}{' and more dimensions' if more else ''}",
                hint="export the bundle again",
            )


def _check_finite(graph: str, outputs: Iterable[np.ndarray], requests: Sequence[PairRequest], where: str) -> None:
    """Names the first pair for which a graph's outputs, [B, ...] each, are not finite."""
    for output in outputs:
        # One sum a pair: a NaN or an infinity anywhere makes it not finite; finite values cannot overflow float64.
        with np.errstate(invalid="ignore"):  # infinities of both signs
            finite = np.isfinite(output.reshape(len(output), -1).sum(1, dtype=np.float64))
        for request, good in zip(requests, finite, strict=False):
            if not good:
                raise NumericsError(
                    f"graph '{graph}' gave a value that is not finite: pair {request.index}, seed {request.seed}, "
                    f"{where}",
                    note="pairs before this batch are complete",
                    hint="check the bundle's precision, or lower the guidance",
                )


def _finish(request: PairRequest, state: np.ndarray) -> Pair:
    """State [C, H, W] -> picture and mask."""
    rgb = state[: len(IMAGE_CHANNELS)].transpose(1, 2, 0)
    image = np.clip(np.rint((rgb + 1) * 127.5), 0, 255).astype(np.uint8)
    instances = request.instances
    if instances is None:
        maps = state[len(IMAGE_CHANNELS) : len(IMAGE_CHANNELS) + len(MAP_CHANNELS)]
        instances = instances_from_maps(np.clip(maps, -1, 1))
    return Pair(request, image, instances.astype(np.uint16))

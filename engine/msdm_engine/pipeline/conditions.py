"""What a request says, as inputs of the conditioner and as noise; computed on the host while other batches run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock

import numpy as np

from msdm_engine.backends import Backend
from msdm_engine.bundle.reader import Bundle
from msdm_engine.conditions.maps import class_maps_from_instances, maps_from_instances
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.contract import CONDITIONER_INPUTS, IMAGE_CHANNELS, TEXT_ENCODER
from msdm_engine.errors import RequestError
from msdm_engine.pairs import PairRequest
from msdm_engine.pipeline.checks import check_finite, check_output, finite_rows
from msdm_engine.pipeline.padding import Padding
from msdm_engine.sampling.guidance import WITHOUT, without
from msdm_engine.sampling.noise import gaussian, step_of_attempt

#: Encoded texts kept; a set may have as many texts as pairs.
MAX_TEXTS = 1024


class Conditions:
    """Conditions of pairs for one bundle; encoded texts are kept."""

    def __init__(self, bundle: Bundle, backend: Backend, tokenizer: TextTokenizer) -> None:
        self._manifest, self._backend, self._tokenizer = bundle.manifest, backend, tokenizer
        (states,) = bundle.manifest.graphs[TEXT_ENCODER].outputs
        self._width = int(states.shape[-1])
        self._texts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._lock = Lock()  # batches side by side share what is kept

    def write(self, requests: Sequence[PairRequest], branches: Sequence[str], into: Mapping[str, np.ndarray]) -> None:
        """Writes the conditioner's inputs of all branches, one after another: [G B, ...] each.

        Raises:
            RequestError: a text that is too long, or classes that the bundle does not have.
            BackendError, NumericsError: the text encoder failed.
        """
        given = [self._of(request) for request in requests]
        stacked = {name: np.stack([conditions[name] for conditions in given]) for name in CONDITIONER_INPUTS}
        for number, branch in enumerate(branches):
            at = slice(number * len(requests), (number + 1) * len(requests))
            for name, value in without(stacked, WITHOUT[branch]).items():
                into[name][at] = value

    def _of(self, request: PairRequest) -> dict[str, np.ndarray]:
        """Inputs of the conditioner for one pair, without the batch dimension."""
        padding = Padding.of(request.height_px, request.width_px, self._manifest.stride)
        channels = self._manifest.state_channels - len(IMAGE_CHANNELS)
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
        n_classes = self._manifest.n_classes
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
        with self._lock:
            return self._encoded(request)

    def _encoded(self, request: PairRequest) -> tuple[np.ndarray, np.ndarray]:
        text = request.metadata.text()
        if text not in self._texts:
            ids, mask = self._tokenizer.encode(text)
            outputs = self._backend.run(TEXT_ENCODER, {"token_ids": ids[None], "token_mask": mask[None]})
            for name, value in outputs.items():
                check_output(TEXT_ENCODER, name, value, (1, len(ids), self._width))
                check_finite(TEXT_ENCODER, finite_rows(value), [request], "before the first step")
            if len(self._texts) >= MAX_TEXTS:
                self._texts.pop(next(iter(self._texts)))  # the oldest
            self._texts[text] = (outputs["token_states"][0], mask)
        return self._texts[text]


def write_noise(requests: Sequence[PairRequest], step: int, into: np.ndarray) -> None:
    """Noise of one step, [B, C, H, W] float32; copies that fill a short batch up are drawn once."""
    drawn: PairRequest | None = None
    for row, request in enumerate(requests):
        if request is drawn:
            into[row] = into[row - 1]
        else:
            key = request.seed, request.index, step_of_attempt(request.attempt, step)
            into[row] = gaussian(*key, *into.shape[1:])
        drawn = request


def write_start(requests: Sequence[PairRequest], sigma_max: float, into: np.ndarray) -> None:
    """The state before the first row, [B, C, H, W] float32: sigma_max z, multiplied in float64."""
    write_noise(requests, 0, into)
    into[...] = np.float64(sigma_max) * into

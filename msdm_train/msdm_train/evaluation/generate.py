"""Sets of generated pairs, made once, kept on disk and completed where a run was interrupted."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.bundle.manifest import Sampling
from msdm_engine.engine import Engine
from msdm_engine.errors import OutputError
from msdm_engine.pairs import Pair, PairRequest
from msdm_engine.sampling.guidance import Guidance
from msdm_train.data.crops import Crop, group_of, request_of
from msdm_train.evaluation.context import Change
from msdm_train.evaluation.samples import Sample, load_samples, save_samples

#: Pairs that are written at once, rounded to whole batches: what a kill costs at most.
CHUNK = 16


class Generator:
    """Pairs of an engine under the conditions of real crops, at one sampling, unfiltered.

    Args:
        engine: opened.
        folder: where the sets are kept, ``NAME.npz`` each.
        sampling, guidance: None: the bundle's.
        say: progress in words.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        say: Callable[[str], None],
        *,
        sampling: Sampling | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        self.engine, self.folder, self.say = engine, folder, say
        self.sampling = sampling or engine.bundle.manifest.sampling
        self.guidance = engine.bundle.manifest.guidance if guidance is None else guidance

    @property
    def identity(self) -> dict[str, Any]:
        """Everything but the requests that decides the bits of a picture."""
        return {
            "bundle": self.engine.bundle.sha256,
            "backend": self.engine.backend.identity,
            "sampling": asdict(self.sampling),
            "guidance": self.guidance.to_json(),
        }

    def set_of(
        self, name: str, crops: Sequence[Crop], seeds: Sequence[int], change: Change | None = None
    ) -> list[Sample]:
        """One pair for each seed and crop, seeds outermost.

        The set is read from the folder where one was made from the same requests.

        Raises:
            OutputError: the folder cannot be written.
            MsdmError: of the engine.
        """
        requests = [
            change(request, crop) if change else request
            for seed in seeds
            for crop, request in ((crop, request_of(crop, i, seed)) for i, crop in enumerate(crops))
        ]
        key = self._key(requests)
        path = self.folder / f"{name}.npz"
        kept = load_samples(path, key)
        if kept is not None:
            return kept
        made: list[Sample] = []
        try:
            for chunk in self._chunks(name, requests, crops, key):
                made += chunk
            save_samples(path, made, key)
            shutil.rmtree(self._parts(name), ignore_errors=True)
        except OSError as error:
            raise OutputError(f"generated set {path} cannot be written: {error.strerror or error}") from error
        return made

    def _chunks(
        self, name: str, requests: Sequence[PairRequest], crops: Sequence[Crop], key: str
    ) -> Iterator[list[Sample]]:
        """The set piece by piece; pieces that were made before are read."""
        size = -(-CHUNK // self.sampling.batch) * self.sampling.batch
        for first in range(0, len(requests), size):
            path = self._parts(name) / f"{first:06d}.npz"
            kept = load_samples(path, key)
            if kept is None:
                self.say(f"generating {name}: {first} of {len(requests)} pairs")
                pairs = self._sample(requests[first : first + size])
                kept = [
                    sample_of(pair, crops[(first + i) % len(crops)], (first + i) % len(crops))
                    for i, pair in enumerate(pairs)
                ]
                save_samples(path, kept, key)
            yield kept

    def _sample(self, requests: Sequence[PairRequest]) -> Iterable[Pair]:
        # Unfiltered: what the critic thinks of a pair must not decide whether it is measured.
        return self.engine.sample(requests, self.sampling, self.guidance, critic=False)

    def _parts(self, name: str) -> Path:
        return self.folder / f".{name}.parts"

    def _key(self, requests: Sequence[PairRequest]) -> str:
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True, default=str).encode())
        for request in requests:
            digest.update(_bytes_of(request))
        return digest.hexdigest()


def sample_of(pair: Pair, crop: Crop, number: int) -> Sample:
    """A pair beside the crop that lent it its conditions."""
    return Sample(pair.image, pair.instances, crop.field, group_of(crop), number, pair.request.seed)


def _bytes_of(request: PairRequest) -> bytes:
    """Everything in a request that decides the picture, unambiguously."""
    told = {
        "index": request.index,
        "seed": request.seed,
        "size": (request.height_px, request.width_px),
        "colour": asdict(request.colour),
        "text": request.metadata.text(),
        "classes": sorted((request.classes or {}).items()),
        "morphology": request.instances is not None,
    }
    mask = b"" if request.instances is None else request.instances.astype("<u2").tobytes()
    return json.dumps(told, sort_keys=True).encode() + b"\0" + mask


def evenly(count: int, limit: int) -> np.ndarray:
    """At most ``limit`` evenly spaced numbers below ``count``, ascending: nothing is chosen by its looks."""
    if count <= limit:
        return np.arange(count)
    return (2 * np.arange(limit) + 1) * count // (2 * limit)

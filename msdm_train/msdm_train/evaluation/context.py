"""What every section of the evaluation is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from msdm_engine.pairs import PairRequest
from msdm_train.data.crops import Crop
from msdm_train.data.pack import Pack
from msdm_train.evaluation.samples import Sample


class Embed(Protocol):
    """An encoder of pictures with real weights."""

    #: name, source and SHA-256 of the weights
    identity: dict[str, str]

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """[H, W, 3] uint8 pictures -> [n, D] float64 embeddings."""
        ...


class Segment(Protocol):
    """A trained segmenter."""

    #: architecture, folds it was trained on, SHA-256 of the weights
    identity: dict[str, str]

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """[H, W, 3] uint8 pictures -> [H, W] uint16 instance maps."""
        ...


@dataclass(frozen=True)
class Context:
    """Data, pictures and networks of one evaluation.

    Args:
        out: folder for plots; sections name them ``plots/<section>-<what>.png``.
        pack: the data set.
        split: ``val`` or ``test``; what is scored.
        side_px: side of all pictures.
        quick: fewer pictures and resamplings, minutes instead of an hour.
        seed: of everything that is drawn.
        real: disjoint windows of the split, in reading order.
        train: disjoint windows of the split train.
        generated: for each real window ``seeds`` pairs under all its conditions, unfiltered, at the bundle's default
            sampling; the first ``len(real)`` have the first seed.
        generated_train: pairs under all conditions of a seeded sample of the windows ``train``, unfiltered.
        usefulness: folder of a finished run of ``msdm-train usefulness``; None: not given.
        make: makes another set of pairs of the same windows, kept under its name:
            ``make(name, change)`` with ``change(request, crop)`` -> request.
        embed: encoder.
        evaluator: segmenter that is not the critic.
        say: progress in words.
    """

    out: Path
    pack: Pack
    split: str
    side_px: int
    quick: bool
    seed: int
    real: tuple[Crop, ...]
    train: tuple[Crop, ...]
    generated: tuple[Sample, ...]
    make: Make
    embed: Embed
    evaluator: Segment
    say: Callable[[str], None]
    generated_train: tuple[Sample, ...] = ()
    usefulness: Path | None = None


class Make(Protocol):
    """Generates another set; see :class:`Context`."""

    def __call__(self, name: str, change: Change) -> list[Sample]:
        """One pair for each real window, first seed, unfiltered; made once and kept on disk."""
        ...


class Change(Protocol):
    """Alters a request before it is generated."""

    def __call__(self, request: PairRequest, crop: Crop) -> PairRequest:
        """The altered request."""
        ...

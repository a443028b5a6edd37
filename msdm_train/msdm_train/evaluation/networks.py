"""The networks that an evaluation looks through: encoder and evaluator, by what the command line names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from msdm_engine.errors import InputError
from msdm_train.evaluation.context import Embed, Segment


class NoEvaluator:
    """Stands where no evaluator was given; whoever asks it is refused."""

    identity: dict[str, str] = {"architecture": "none given"}  # noqa: RUF012  (of the protocol; never changed)

    def __call__(self, images: Sequence[np.ndarray]) -> NoReturn:
        """Refuses."""
        raise InputError(
            "no evaluator was given",
            note="mask fidelity is measured by a segmenter that was trained on real tiles and is not the critic",
            hint="train one with `msdm-train segment`, then name its folder with --evaluator",
        )


def open_evaluator(folder: Path | None) -> Segment:
    """The trained segmenter in a folder; None: one that refuses every question."""
    if folder is None:
        return NoEvaluator()
    raise NotImplementedError


def open_encoder(name: str) -> Embed:
    """The encoder of that name."""
    raise NotImplementedError

"""The evaluator: a trained segmenter that has neither judged before nor seen the fields that it is to judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from msdm_engine.bundle.manifest import Manifest
from msdm_engine.errors import InputError
from msdm_train.data.pack import Pack
from msdm_train.evaluation.context import Segment


class NoEvaluator:
    """Stands where no evaluator was given; whoever asks it is refused."""

    identity: dict[str, str] = {"architecture": "none given"}  # noqa: RUF012  (of the protocol; never changed)

    def __call__(self, images: Sequence[np.ndarray]) -> NoReturn:
        """Refuses."""
        raise InputError(
            "no evaluator was given",
            note="nuclei in pictures are found by a segmenter that was trained on real tiles and is not the critic",
            hint="train one with `msdm-train segment`, then name its folder with --evaluator",
        )


def open_evaluator(folder: Path | None, pack: Pack, split: str, manifest: Manifest) -> Segment:
    """The trained segmenter in a folder; None: one that refuses every question.

    Raises:
        InputError: not a segmenter; trained on other than real fields, on one of the split, or the bundle's critic.
    """
    if folder is None:
        return NoEvaluator()
    from msdm_train.segmentation.predict import Segmenter

    segmenter = Segmenter.load(folder)
    check_evaluator(segmenter.identity, pack, split, manifest)
    return segmenter


def check_evaluator(identity: dict[str, str], pack: Pack, split: str, manifest: Manifest) -> None:
    """Raises InputError if a segmenter of this identity may not judge this bundle on this split."""
    source = json.loads(identity["source"])
    if set(source) & {"samples", "folder", "mixture"} or "fields" not in source:
        raise InputError(
            "the evaluator was not trained on real fields alone",
            note=f"its source is {identity['source'][:200]}",
            hint="train one on a packed data set with `msdm-train segment`",
        )
    seen = set(source["fields"]) if source["pack"] == pack.info.name else set()
    touched = sorted(seen & {field.id for field in pack.split(split)})
    if touched:
        raise InputError(
            f"the evaluator was trained on field(s) {', '.join(touched)} of the split '{split}'",
            note="it would find their nuclei by heart",
            hint="train it on fields of train",
        )
    critic = manifest.critic or {}
    if identity["sha256"] == critic.get("sha256") or identity["architecture"] == critic.get("architecture"):
        raise InputError(
            f"the evaluator is the critic of bundle {manifest.name}, or of its architecture {identity['architecture']}",
            note="pairs may be chosen by the critic, and must be judged by a network that sees otherwise",
            hint="train another architecture with `msdm-train segment`",
        )

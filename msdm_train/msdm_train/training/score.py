"""Samples of a running training, scored: do they follow their masks, and do they look like the data?

Every ``score_every`` steps pairs are drawn from the averaged weights for fixed windows of ``val`` (PyTorch, Euler over
Karras sigmas, fixed noise). An evaluator that was trained on real tiles segments the pictures, and an encoder says how
far they lie from all windows of ``val``. A dozen windows rank the checkpoints of one run; the protocol of
``msdm-train evaluate`` is what judges a model.

``checkpoint-best`` is the one with the smallest distance among those whose Dice reaches :data:`ENOUGH` of what the
evaluator has on the same real windows; while there is none, the one with the highest Dice. Without an encoder it is
the one with the highest Dice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.errors import RequestError
from msdm_engine.metrics.segmentation import aggregated_jaccard, dice
from msdm_train.data.batches import Batch
from msdm_train.data.crops import Crop, request_of, windows
from msdm_train.data.pack import Pack, state_of
from msdm_train.evaluation.context import Embed, Segment
from msdm_train.evaluation.distances import kernel_distance
from msdm_train.model.msdm import MSDM
from msdm_train.training.checkpoint import read_info, settled
from msdm_train.training.config import FitConfig
from msdm_train.training.grid import euler_samples
from msdm_train.training.start import Start

#: Share of the evaluator's Dice on real windows that counts as following the mask.
ENOUGH = 0.97
SAMPLING_STEPS = 16
#: Most real windows that the distance is taken to.
REAL_WINDOWS = 200


@dataclass(frozen=True)
class Judge:
    """Networks that score: a segmenter trained on real tiles, and an encoder of pictures or None."""

    evaluator: Segment
    embed: Embed | None = None


def open_judge(evaluator: Path, encoder: str = "lite0") -> Judge:
    """The segmenter in a folder of ``msdm-train segment`` and the encoder of that name (``none``: no encoder)."""
    from msdm_train.segmentation.predict import Segmenter

    if encoder == "none":
        return Judge(Segmenter.load(evaluator))
    from msdm_train.evaluation.encoder import open_encoder

    return Judge(Segmenter.load(evaluator), open_encoder(encoder))


@dataclass(frozen=True)
class Score:
    """Means over the windows: Dice and AJI in [0, 1] of generated and of real ones, and the kernel distance.

    ``distance`` is that of :func:`~msdm_train.evaluation.distances.kernel_distance`; None without an encoder.
    """

    dice: float
    aji: float
    dice_real: float
    aji_real: float
    distance: float | None

    def to_json(self) -> dict[str, float]:
        """What there is of it."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def rank(self) -> tuple[bool, float]:
        """The larger, the better: see the module's docstring."""
        follows = self.dice >= ENOUGH * self.dice_real
        return (follows, -self.distance) if follows and self.distance is not None else (False, self.dice)


class Scorer:
    """Scores a model on fixed windows."""

    def __init__(self, pack: Pack, config: FitConfig, judge: Judge, tokenizer: TextTokenizer) -> None:
        found = windows(pack, "val", config.crop_px)
        if len(found) < config.score_windows:
            raise RequestError(
                f"the split val of {pack.info.name} has {len(found)} windows of {config.crop_px} px, not "
                f"{config.score_windows}",
                note="scores are taken on val, never on train or test",
                hint="prepare the data with a val split, ask for fewer --score-windows, or leave --score-every out",
            )
        picks = [(2 * i + 1) * len(found) // (2 * config.score_windows) for i in range(config.score_windows)]
        self.crops, self.judge, self._batch = [found[i] for i in picks], judge, config.batch
        self._batches = [
            _batch_of(pack, self.crops[i : i + self._batch], tokenizer) for i in range(0, len(picks), self._batch)
        ]
        self._real = self._agreement([crop.image for crop in self.crops])
        spread = np.linspace(0, len(found) - 1, min(len(found), REAL_WINDOWS)).astype(int)
        self._embedded = judge.embed([found[i].image for i in spread]) if judge.embed else None

    @classmethod
    def open(cls, pack: Pack, config: FitConfig, judge: Judge | None, start: Start) -> Scorer:
        """A scorer for a run; RequestError where it lacks an evaluator or windows."""
        if judge is None:
            raise RequestError(
                "--score-every needs an evaluator",
                note="a segmenter trained on real tiles",
                hint="train one with `msdm-train segment`, then name its folder with --evaluator",
            )
        tokenizer = TextTokenizer(start.tokenizer.encode(), start.info.model.text_tokens)
        return cls(pack, config, judge, tokenizer)

    def __call__(self, model: MSDM) -> Score:
        """Samples a picture for each window and scores them."""
        pictures = [picture for i, batch in enumerate(self._batches) for picture in _pictures(model, batch, seed=i)]
        dice_made, aji_made = self._agreement(pictures)
        distance = None
        if self.judge.embed is not None and self._embedded is not None:
            distance = kernel_distance(self._embedded, self.judge.embed(pictures)).value
        return Score(dice_made, aji_made, *self._real, distance)

    def _agreement(self, pictures: list[np.ndarray]) -> tuple[float, float]:
        """Mean Dice and AJI of the evaluator's instances with the windows' own."""
        found = self.judge.evaluator(pictures)
        pairs = [(crop.instances, instances) for crop, instances in zip(self.crops, found, strict=True)]
        return (
            float(np.mean([dice(a, b).value for a, b in pairs])),
            float(np.mean([aggregated_jaccard(a, b).value for a, b in pairs])),
        )

    def beats(self, score: Score, best: Path) -> bool:
        """Whether a score is better than that of the checkpoint ``best``, if there is one."""
        if not settled(best).exists():
            return True
        stored = read_info(best).training["score"]
        return score.rank() > Score(**{"distance": None, **stored}).rank()


def _batch_of(pack: Pack, crops: list[Crop], tokenizer: TextTokenizer) -> Batch:
    """All conditions of some windows, as :class:`~msdm_train.data.batches.CropSampler` gives them."""
    samples = []
    for crop in crops:
        request = request_of(crop, 0, 0)
        colour, colour_present = request.colour.features()
        ids, mask = tokenizer.encode(request.metadata.text())
        state = state_of(crop.image, crop.instances, pack.classes(crop.field), pack.info.n_classes)
        samples.append(
            {
                "state": state.astype(np.float32),
                "maps_present": np.ones(1, np.float32),
                "colour": colour,
                "colour_present": colour_present,
                "token_ids": ids,
                "token_mask": mask,
            }
        )
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def _pictures(model: MSDM, batch: Batch, seed: int) -> list[np.ndarray]:
    """[H, W, 3] uint8 pictures for the conditions of a batch."""
    tensors = {name: torch.as_tensor(value).to(model.mean.device) for name, value in batch.items()}
    made = euler_samples(model, tensors, SAMPLING_STEPS, seed)[:, :3].clamp(-1, 1)
    return list(((made + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())

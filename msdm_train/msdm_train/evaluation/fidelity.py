"""Mask fidelity: does the generated picture show the mask that was asked for?

The evaluator, a segmenter trained on real tiles only, is run on the generated pictures and scored against the
requested masks. Its score on real windows of the same split is the ceiling, as it is no perfect segmenter; its score
against masks of other pictures is the floor. A ratio of generated to real above one means pictures that are easier to
segment than real ones, so it is always read beside the closeness to real pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from msdm_engine.errors import InputError
from msdm_train.evaluation.context import Context, Segment
from msdm_train.evaluation.samples import Sample, real_samples
from msdm_train.evaluation.statistics import bootstrap_by_field
from msdm_train.segmentation.scoring import POOLED, SCORES, MaskScores, score_masks

RESAMPLINGS, QUICK_RESAMPLINGS = 2000, 200
#: What a faithful generator's ratio should lie in.
RANGE = (0.95, 1.05)

PROTOCOL = (
    "The evaluator, trained on real fields other than these, segments each picture; its instance map is scored against "
    "the mask that was asked for (generated), against the annotation (real: the ceiling), and against the mask of "
    "another picture of the same size (shuffled: the floor). Pooled scores are ratios of sums over all pixels (Dice, "
    "AJI, boundary distance) or nuclei (PQ), means give each picture one vote. The ratio is generated / real of the "
    "pooled scores; of Dice, AJI and PQ it should lie in 0.95 to 1.05, of the distance, where smaller is better, near "
    "or below 1. Intervals: 95 %, fields drawn with replacement, each with its real and its generated pictures."
)


def run(context: Context) -> dict[str, Any]:
    """The section of the report: scores of generated, real and shuffled pictures, their ratios, and groups apart.

    Raises:
        InputError: no real or no generated pictures.
    """
    real, generated = real_samples(context.real), list(context.generated)
    if not real or not generated:
        missing = "real" if not real else "generated"
        raise InputError(
            f"fidelity was asked for without {missing} pictures",
            note=f"split '{context.split}', windows of {context.side_px} px",
            hint="choose another split, or smaller windows",
        )
    context.say(f"fidelity: {len(generated)} generated and {len(real)} real pictures")
    seen = context.evaluator([sample.image for sample in generated])
    shuffled = shuffled_masks(generated, context.seed)
    kept = [at for at, mask in enumerate(shuffled) if mask is not None]
    scores = {
        "generated": score_masks([sample.instances for sample in generated], seen),
        "real": _scored(context.evaluator, real),
        "shuffled": score_masks([mask for mask in shuffled if mask is not None], [seen[at] for at in kept]),
    }
    resamplings = QUICK_RESAMPLINGS if context.quick else RESAMPLINGS
    groups = sorted({sample.group for sample in real} & {sample.group for sample in generated})

    def ratio_of(group: str | None, score: str) -> dict[str, Any]:
        chosen = _Pairs(real, generated, scores["real"], scores["generated"], group)
        return chosen.ratio(score, resamplings, context.seed)

    return {
        "protocol": PROTOCOL,
        "evaluator": dict(context.evaluator.identity),
        "split": context.split,
        "range": list(RANGE),
        "n": {name: len(of.picture) for name, of in scores.items()},
        "fields": sorted({sample.field for sample in real}),
        "scores": {name: _summary(of) for name, of in scores.items()},
        "ratio": {score: ratio_of(None, score) for score in POOLED},
        "groups": {
            group: {
                "n": {"generated": _count(generated, group), "real": _count(real, group)},
                "fields": sorted({sample.field for sample in real if sample.group == group}),
                "generated": _summary(scores["generated"], _indices(generated, group)),
                "real": _summary(scores["real"], _indices(real, group)),
                "ratio": {score: ratio_of(group, score) for score in POOLED},
            }
            for group in groups
        },
    }


def shuffled_masks(samples: Sequence[Sample], seed: int) -> list[np.ndarray | None]:
    """For each picture the mask of another crop of the same size; None where there is none.

    The crops of a size, in an order drawn from ``seed``, lend their masks to their successors.
    """
    rng = np.random.default_rng([seed, 0xF1DE])
    crops: dict[tuple[int, ...], dict[int, np.ndarray]] = {}
    for sample in samples:
        crops.setdefault(sample.instances.shape, {}).setdefault(sample.crop, sample.instances)
    lender: dict[tuple[tuple[int, ...], int], np.ndarray | None] = {}
    for size, masks in crops.items():
        order = rng.permutation(sorted(masks)).tolist()
        for crop, other in zip(order, order[1:] + order[:1], strict=True):
            lender[size, crop] = masks[other] if other != crop else None
    return [lender[sample.instances.shape, sample.crop] for sample in samples]


class _Pairs:
    """Real and generated pictures of one group, or of all, whose scores are compared field by field."""

    def __init__(
        self,
        real: Sequence[Sample],
        generated: Sequence[Sample],
        real_scores: MaskScores,
        generated_scores: MaskScores,
        group: str | None,
    ) -> None:
        at_real, at_generated = _indices(real, group), _indices(generated, group)
        # One list of samples for the bootstrap: real ones first, then generated ones.
        self._fields = [real[i].field for i in at_real] + [generated[i].field for i in at_generated]
        self._index = np.concatenate([at_real, at_generated])
        self._is_real = np.arange(len(self._index)) < len(at_real)
        self._scores = (real_scores, generated_scores)

    def ratio(self, score: str, resamplings: int, seed: int) -> dict[str, Any]:
        """Generated / real of a pooled score, with its interval as JSON."""
        statistic = self._statistic(score)
        return bootstrap_by_field(self._fields, statistic, resamplings=resamplings, seed=seed).to_json()

    def _statistic(self, score: str) -> Callable[[np.ndarray], float]:
        def ratio(drawn: np.ndarray) -> float:
            is_real = self._is_real[drawn]
            real = self._scores[0].pooled(score, self._index[drawn[is_real]])
            made = self._scores[1].pooled(score, self._index[drawn[~is_real]])
            return made / real if real else float("nan")

        return ratio


def _scored(segment: Segment, samples: Sequence[Sample]) -> MaskScores:
    return score_masks([sample.instances for sample in samples], segment([sample.image for sample in samples]))


def _indices(samples: Sequence[Sample], group: str | None) -> np.ndarray:
    return np.array([i for i, sample in enumerate(samples) if group in (None, sample.group)], np.intp)


def _count(samples: Sequence[Sample], group: str) -> int:
    return sum(sample.group == group for sample in samples)


def _summary(scores: MaskScores, chosen: np.ndarray | None = None) -> dict[str, Any]:
    """Means over pictures and pooled scores, null where undefined; and how many pictures had no distance."""
    return {
        "mean": {score: _finite(scores.mean(score, chosen)) for score in SCORES},
        "pooled": {score: _finite(scores.pooled(score, chosen)) for score in POOLED},
        "one_mask_empty": int(scores.empty[slice(None) if chosen is None else chosen].sum()),
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None

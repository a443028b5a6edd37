"""Memorisation: is a generated picture a train picture, flipped, turned or shifted?

Under the masks of the split, the first percentile of the distance from generated pictures to their nearest train crop
must not lie below that of the split's own real windows, which are of other fields by construction. Under the masks of
train windows a generated picture resembles the crop that lent its mask, whoever generated it, because its nuclei lie in
the same places. How much that alone explains is seen on the split: pairs of its masks against the windows that lent
them, which the generator never saw. A generator that knows its train pictures comes closer than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from msdm_engine.errors import InputError
from msdm_engine.output.png import png_bytes, write_atomically
from msdm_train.compare import GAP_PX, NOTICE
from msdm_train.evaluation.context import Context
from msdm_train.evaluation.nearest_train import (
    Match,
    TrainRegion,
    correlation_distance,
    nearest_train,
    train_regions,
    undone,
)
from msdm_train.evaluation.plots import MADE, OTHER, REAL, save_plot
from msdm_train.evaluation.report import local_folder
from msdm_train.evaluation.rows import Row
from msdm_train.evaluation.score_sheet import ScoreSheet
from msdm_train.evaluation.statistics import Interval, bootstrap_by_field

SHARE = 0.01
SHOWN = 8
CRITERION = (
    "The first percentile of generated pictures must not lie below that of its reference. Passed: it does not. Failed: "
    "it does, and so does the interval of the difference, where fields allow one. Undecided: it does, but the interval "
    "reaches zero."
)
WAY = "one minus normalised cross-correlation to the nearest train crop, over all flips, quarter turns and shifts"


def run(context: Context) -> dict[str, Any]:
    """Rows, verdicts and a plot; the closest pairs go into ``local``, for they hold real tiles.

    Raises:
        InputError: train has no window of this size.
    """
    sheet, regions = ScoreSheet(context), train_regions(context.pack, context.side_px)
    context.say(f"memorisation: searching {len(regions)} regions of train")
    real = nearest_train([crop.image for crop in context.real], regions)
    made = nearest_train([sample.image for sample in context.generated], regions)
    again = nearest_train([sample.image for sample in context.generated_train], regions)
    distances = {"real windows of the split": _values(real), "generated, masks of the split": _values(made)}
    if again:
        distances["generated, masks of train"] = _values(again)
    verdicts = {"masks of the split": split_row(context, sheet, _values(real), _values(made))}
    sheet.attempt("masks of train", lambda: verdicts.update({"masks of train": train_row(context, sheet)}))
    found = [(s.image, m) for s, m in zip((*context.generated, *context.generated_train), made + again, strict=True)]
    picture = png_bytes(closest_pairs(found, regions), {"Comment": NOTICE})
    write_atomically(local_folder(context.out) / "memorisation-closest.png", picture)
    return {
        **sheet.to_json(),
        "criterion": CRITERION,
        "verdict": verdicts,
        "distances": [_summary(name, values) for name, values in distances.items()],
        "plots": [plot_distances(context, distances)],
    }


def split_row(context: Context, sheet: ScoreSheet, real: np.ndarray, made: np.ndarray) -> str:
    """Generated pictures of the split's masks against the split's real windows; returns the verdict."""
    fields = [*(s.field for s in context.generated), *(crop.field for crop in context.real)]
    told = f"{WAY}; ceiling: real windows of the split, whose fields are not in train; floor: a copy"
    return _compare(sheet, "nearest train crop, masks of the split", made, real, fields, told)


def train_row(context: Context, sheet: ScoreSheet) -> str:
    """Pairs of train masks against the crops that lent them, beside the same on the split; returns the verdict.

    Raises:
        InputError: there are no pairs of train masks.
    """
    if not context.generated_train:
        raise InputError("no pairs were made from masks of train", hint="use a data set with train windows")
    # A number that counts in another list would compare pictures that have nothing in common, and pass.
    if any(context.train[s.crop].field != s.field for s in context.generated_train):
        raise ValueError("the pairs of train masks do not number the windows of context.train")
    own = np.array([correlation_distance(s.image, context.train[s.crop].image) for s in context.generated_train])
    unseen = np.array([correlation_distance(s.image, context.real[s.crop].image) for s in context.generated])
    fields = [s.field for s in (*context.generated_train, *context.generated)]
    told = (
        "one minus normalised cross-correlation to the train window that lent the mask; ceiling: pairs of the split's "
        "masks to the windows that lent them, unseen in training; floor: a copy"
    )
    return _compare(sheet, "own train crop, masks of train", own, unseen, fields, told)


def _compare(
    sheet: ScoreSheet, name: str, made: np.ndarray, reference: np.ndarray, fields: Sequence[str], protocol: str
) -> str:
    """Two rows, the percentile and its difference from that of the reference, and the verdict."""
    both, n = np.concatenate([made, reference]), len(made)

    def gap(picked: np.ndarray) -> float:
        mine = picked < n
        if mine.all() or not mine.any():
            return np.nan
        return float(np.quantile(both[picked[mine]], SHARE) - np.quantile(both[picked[~mine]], SHARE))

    sheet.statistic(
        f"{name}: first percentile", lambda k: float(np.quantile(made[k], SHARE)), fields[:n], protocol,
        floor=0.0, ceiling=float(np.quantile(reference, SHARE)), want="high",
    )  # fmt: skip
    difference = bootstrap_by_field(fields, gap, resamplings=sheet.resamplings, seed=sheet.seed)
    sheet.rows.append(Row(f"{name}: difference from the reference", difference, n, CRITERION))
    return verdict_of(difference)


def verdict_of(difference: Interval) -> str:
    """``passed``, ``failed`` or ``undecided``, by :data:`CRITERION`."""
    if difference.value >= 0:
        return "passed"
    return "failed" if difference.high is None or difference.high < 0 else "undecided"


def _values(matches: Sequence[Match]) -> np.ndarray:
    return np.array([match.distance for match in matches])


def _summary(name: str, values: np.ndarray) -> dict[str, Any]:
    first, middle = np.quantile(values, [SHARE, 0.5])
    return {"pictures": name, "n": len(values), "minimum": values.min(), "first percentile": first, "median": middle}


def closest_pairs(found: Sequence[tuple[np.ndarray, Match]], regions: Sequence[TrainRegion]) -> np.ndarray:
    """[H, W, 3] uint8: generated pictures (left) beside their nearest train crops, the closest first."""
    rows = []
    for image, match in sorted(found, key=lambda pair: pair[1].distance)[:SHOWN]:
        side = image.shape[0]
        crop = regions[match.region].image[match.y : match.y + side, match.x : match.x + side]
        gap = np.full((side, GAP_PX, 3), 255, np.uint8)
        rows += [
            np.concatenate([image, gap, undone(crop, match.symmetry)], 1),
            np.full((GAP_PX, 2 * side + GAP_PX, 3), 255, np.uint8),
        ]
    return np.concatenate(rows[:-1])


def plot_distances(context: Context, distances: dict[str, np.ndarray]) -> dict[str, str]:
    """Cumulative distributions of the distance to the nearest train crop."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for (name, values), colour in zip(distances.items(), (REAL, MADE, OTHER), strict=False):
            axes.step(np.sort(values), np.arange(1, len(values) + 1) / len(values), color=colour, label=name)
        axes.set_xlim(0, None)
        axes.set_xlabel("distance to the nearest train crop (1 - correlation)")
        axes.set_ylabel("share at most")
        axes.legend(frameon=False)

    path = save_plot(context.out, "memorisation-distances", draw)
    return {"path": path, "caption": "Distance to the nearest train crop; a copy has distance 0."}

"""Plots of the section on closeness: bars with floors, and a heat map of all pairs of groups. Numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from msdm_train.evaluation.plots import MADE, OTHER, REAL, save_plot

if TYPE_CHECKING:
    from msdm_train.evaluation.closeness import GroupScore

AXIS = "2-Wasserstein distance (SD of train windows)"


def plot_groups(out: Path, scores: Sequence[GroupScore]) -> dict[str, str]:
    """Matched and mismatched distance of each group, with its floor."""
    at = np.arange(len(scores), dtype=float)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.barh(at - 0.2, [s.matched.mean for s in scores], 0.36, color=MADE, label="generated, matched")
        axes.barh(at + 0.2, [s.mismatched_mean for s in scores], 0.36, color=OTHER, label="generated, mismatched")
        floors = np.array([[s.floor.low, s.floor.mean, s.floor.high] for s in scores])
        axes.hlines(at, floors[:, 0], floors[:, 2], color=REAL, linewidth=1.5, label="floor: real to train, 5 to 95 %")
        axes.plot(floors[:, 1], at, "|", color=REAL, markersize=22, markeredgewidth=2)
        axes.set_yticks(at, [s.group.name for s in scores])
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.set_xlim(0, None)
        axes.grid(False, axis="y")
        axes.set_xlabel(f"{AXIS}, n = {scores[0].matched.n}")
        figure.legend(loc="outside upper left", frameon=False, ncols=3)

    path = save_plot(out, "closeness-groups", draw, size=(7.5, 1.3 + 0.55 * len(scores)))
    caption = (
        "Generated pairs against the real windows of their conditions and against those of other groups, with what "
        "real windows of the split give against real train windows of the same group."
    )
    return {"path": path, "caption": caption}


def plot_pairs(out: Path, scores: Sequence[GroupScore]) -> dict[str, str]:
    """Heat map: generated pairs of each group (rows) against real windows of each group (columns)."""
    names = [s.group.name for s in scores]
    values = np.array([[s.matched.mean if n == s.group.name else s.mismatched[n].mean for n in names] for s in scores])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        shown = axes.imshow(values, cmap="viridis_r")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("real windows")
        axes.set_ylabel("generated pairs")
        middle = (values.min() + values.max()) / 2
        for (y, x), value in np.ndenumerate(values):
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", color="white" if value > middle else "black")
        figure.colorbar(shown, ax=axes, label=AXIS, shrink=0.9)

    path = save_plot(out, "closeness-pairs", draw, size=(3.0 + 0.9 * len(names), 2.0 + 0.6 * len(names)))
    caption = f"2-Wasserstein distance at n = {scores[0].matched.n}; the diagonal has matching conditions."
    return {"path": path, "caption": caption}

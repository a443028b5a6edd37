"""Forest plot: effects with their intervals, one panel for each label fraction and kind of nuclei."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msdm_train.evaluation.usefulness.score import METRICS, NUCLEI

COLOURS = {"dice": "#999999", "aji": "#c9a227", "pq": "#8e44ad"}

#: Rows of one comparison lie this far apart, comparisons one unit.
OFFSET = 0.22


def draw_forest(figure: Figure, report: dict[str, Any]) -> None:
    """Draws the effects of a report; open markers are exploratory. An empty report gives empty panels."""
    effects = report["effects"]
    fractions = sorted({row["fraction"] for row in effects}) or [1.0]
    comparisons = list(dict.fromkeys((row["arm"], row["base"]) for row in effects))
    axes = figure.subplots(len(fractions), len(NUCLEI), sharex=True, sharey=True, squeeze=False)
    for row_of_axes, fraction in zip(axes, fractions, strict=True):
        for ax, nuclei in zip(row_of_axes, NUCLEI, strict=True):
            rows = [row for row in effects if (row["fraction"], row["nuclei"]) == (fraction, nuclei)]
            _panel(ax, rows, comparisons)
            fields = max((row["n_fields"] for row in rows), default=0)
            ax.set_title(f"{nuclei} nuclei, {fraction:.0%} of labels, {fields} fields", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("difference of the score, paired by field and seed")
    handles = [axes[0, 0].plot([], [], "o-", color=COLOURS[metric], label=metric.upper())[0] for metric in METRICS]
    done = report["parts"]
    title = f"{done['done']} of {done['of']} parts; open markers: exploratory; lines: 95 % over fields, then seeds"
    figure.legend(handles=handles, loc="outside lower center", ncols=len(METRICS), title=title)


def _panel(ax: Axes, rows: list[dict[str, Any]], comparisons: list[tuple[str, str]]) -> None:
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(comparisons)), [f"{arm} - {base}" for arm, base in comparisons])
    ax.set_ylim(max(len(comparisons), 1) - 0.5, -0.5)
    for row in rows:
        y = comparisons.index((row["arm"], row["base"])) + OFFSET * (METRICS.index(row["metric"]) - 1)
        colour = COLOURS[row["metric"]]
        if row["low"] is not None:
            ax.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.5)
        ax.plot(
            [row["value"]],
            [y],
            "o",
            color=colour,
            markersize=4,
            markerfacecolor="white" if row["exploratory"] else colour,
        )

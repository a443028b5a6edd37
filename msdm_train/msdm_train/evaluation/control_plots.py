"""Plots of the section on control: distributions of nuclei, and the same windows under other conditions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from msdm_engine.output.contact_sheet import draw_outlines
from msdm_train.evaluation.control_measures import MEASURES, Shape
from msdm_train.evaluation.generate import evenly
from msdm_train.evaluation.plots import MADE, REAL, save_plot
from msdm_train.evaluation.samples import Sample

EXAMPLES = 6
THUMBNAIL_PX, EDGE_PX = 128, 2


def plot_shapes(out: Path, real: Sequence[Shape], invented: Sequence[Shape]) -> dict[str, str]:
    """Cumulative distributions of count, area and aspect ratio, real and invented."""

    def draw(figure: Figure) -> None:
        for axes, measure in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
            for shapes, colour, label in ((real, REAL, "real"), (invented, MADE, "invented")):
                values = np.sort(np.concatenate([measure.values(s) for s in shapes]))
                if len(values):
                    axes.step(values, np.arange(1, len(values) + 1) / len(values), color=colour, label=label)
            axes.set_xlabel(f"{measure.name}{f' ({measure.unit})' if measure.unit else ''}")
        figure.axes[0].set_ylabel("share at most")
        figure.axes[0].legend(frameon=False)

    path = save_plot(out, "control-invented", draw)
    return {"path": path, "caption": "Nuclei of invented layouts and of real windows: cumulative distributions."}


def plot_examples(out: Path, sets: Sequence[tuple[str, Sequence[Sample]]]) -> dict[str, Any]:
    """The same windows (rows) under other conditions (columns); generated pictures only."""
    picked = evenly(len(sets[0][1]), EXAMPLES)
    grid = np.concatenate([np.concatenate([_thumbnail(samples[i]) for _, samples in sets], 1) for i in picked])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.imshow(grid, interpolation="nearest")
        axes.grid(False)
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xticks((np.arange(len(sets)) + 0.5) * len(grid) / len(picked), [name for name, _ in sets], fontsize=7)

    size = (1.3 * len(sets), 1.3 * len(picked) + 0.3)
    path = save_plot(out, "control-examples", draw, size=size)
    caption = "Rows: the same mask and noise. Columns: what was changed in the request. All pictures are generated."
    return {"path": path, "caption": caption}


def _thumbnail(sample: Sample) -> np.ndarray:
    """[THUMBNAIL_PX, THUMBNAIL_PX, 3] uint8 with a white edge; the right half shows the outlines of its mask."""
    outlined = draw_outlines(sample.image, sample.instances)
    half = sample.image.shape[1] // 2
    joined = np.concatenate([sample.image[:, :half], outlined[:, half:]], 1)
    inner = cv2.resize(joined, (THUMBNAIL_PX - 2 * EDGE_PX,) * 2, interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(inner, *(EDGE_PX,) * 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))

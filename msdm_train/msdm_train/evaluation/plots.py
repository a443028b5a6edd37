"""Plots as PNG files that are the same bytes for the same numbers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from msdm_engine.errors import OutputError

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.dpi": 120,
}
REAL, MADE, OTHER = "#333333", "#8e44ad", "#c9a227"


def save_plot(out: Path, name: str, draw: Callable[[Figure], None], *, size: tuple[float, float] = (7.5, 3.0)) -> str:
    """Draws into ``out / plots / NAME.png`` and returns the path relative to ``out``.

    Args:
        size: width and height in inches, 120 dots each.

    Raises:
        OutputError: the file cannot be written.
    """
    relative = f"plots/{name}.png"
    path = out / relative
    temporary = path.with_name(f".{path.name}.tmp")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without the version of Matplotlib, which is no part of the plot.
            figure.savefig(temporary, format="png", metadata={"Software": None})
            os.replace(temporary, path)
        except OSError as error:
            raise OutputError(f"plot {path} cannot be written: {error.strerror or error}") from error
    return relative

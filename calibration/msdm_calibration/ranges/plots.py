"""Plots of a range report: PNG files that are the same bytes for the same numbers. Nothing of the tiles is in them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from msdm_calibration.ranges.document import OUTLIER, RangeReport
from msdm_calibration.ranges.findings import HEADROOM, Outliers
from msdm_calibration.ranges.layers import by_layer, sigmas_of
from msdm_engine.contract import DENOISER
from msdm_engine.errors import BackendError
from msdm_engine.output.png import write_atomically

PLOTS = "plots"
#: Rows of the bar charts.
SHOWN = 25
_DOTS = 110


def draw_plots(report: RangeReport, outliers: Sequence[Outliers], out: Path) -> list[Path]:
    """Draws all plots into ``out / plots`` and returns their paths.

    Raises:
        BackendError: Matplotlib is not installed.
        OutputError: they cannot be written.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise BackendError(
            "the plots need Matplotlib, which is not installed", hint="pip install 'msdm[calibrate]'"
        ) from error
    folder = out / PLOTS
    folder.mkdir(parents=True, exist_ok=True)
    layers = len(by_layer(report, DENOISER))
    paths = [
        _save(folder / "heat.png", lambda figure: _heat(figure, report), (11, 1.6 + 0.115 * layers)),
        _save(folder / "headroom.png", lambda figure: _headroom(figure, report), (8, 5.2)),
    ]
    if outliers:
        size = (8, 1.2 + 0.17 * min(len(outliers), SHOWN))
        paths.append(_save(folder / "outliers.png", lambda figure: _outliers(figure, outliers), size))
    return paths


def _save(path: Path, draw: Callable[..., None], size: tuple[float, float]) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=_DOTS)
    FigureCanvasAgg(figure)
    draw(figure)
    buffer = io.BytesIO()
    # Without the version of Matplotlib, which is no part of the plot.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
    return path


def _heat(figure, report: RangeReport) -> None:  # type: ignore[no-untyped-def]  # Matplotlib is optional
    layers, sigmas = by_layer(report, DENOISER), sigmas_of(report, DENOISER)
    headroom = np.array([[level.headroom_bits for level in row] for row in layers.values()])
    dynamic = np.array([[level.dynamic_bits for level in row] for row in layers.values()])
    headroom[~np.isfinite(headroom)] = np.nan  # all zero: nothing to overflow
    panels = (
        (headroom, "bits of headroom to 65,504", "RdYlGn", (0, 16)),
        (dynamic, "bits from the median to the largest magnitude", "viridis", (0, 16)),
    )
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (values, title, colours, (low, high)) in zip(axes, panels, strict=True):
        picture = axis.imshow(values, aspect="auto", cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axis.set_title(title, fontsize=9)
        places = range(0, len(sigmas), max(1, len(sigmas) // 10))
        axis.set_xticks(list(places), [f"{sigmas[i]:.2g}" for i in places], fontsize=7, rotation=45)
        axis.set_xlabel("noise level, first step at the left", fontsize=8)
        figure.colorbar(picture, ax=axis, shrink=0.3, extend="both")
    axes[0].set_yticks(range(len(layers)), list(layers), fontsize=5)


def _headroom(figure, report: RangeReport) -> None:  # type: ignore[no-untyped-def]
    least = [
        (min(level.headroom_bits for level in row), f"{graph}: {layer}")
        for graph in report.graphs
        for layer, row in by_layer(report, graph).items()
    ]
    shown = sorted(least)[:SHOWN][::-1]
    axis = figure.subplots()
    values = [max(bits, -8.0) for bits, _ in shown]
    axis.barh([name for _, name in shown], values, color=["#b2182b" if v < 0 else "#4393c3" for v in values])
    axis.axvline(0, color="black", linewidth=0.8)
    axis.axvline(np.log2(HEADROOM), color="black", linewidth=0.8, linestyle=":")
    axis.tick_params(axis="y", labelsize=6)
    figure.supxlabel(
        "bits of headroom to 65,504, least of all noise levels (cut at -8); dotted: a factor of two", fontsize=8
    )


def _outliers(figure, outliers: Sequence[Outliers]) -> None:  # type: ignore[no-untyped-def]
    shown = outliers[:SHOWN][::-1]
    axis = figure.subplots()
    names = [f"{one.graph}: {one.layer or '-'} ({one.tensor}), {len(one.channels)} of {one.of}" for one in shown]
    axis.barh(names, [one.ratio for one in shown], color="#762a83")
    axis.axvline(OUTLIER, color="black", linewidth=0.8, linestyle=":")
    axis.set_xscale("log", base=2)
    axis.tick_params(axis="y", labelsize=6)
    figure.supxlabel("largest channel over median channel; dotted: the rule for an outlier", fontsize=8)

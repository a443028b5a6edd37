"""The plot of a tuning: quality against cost."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from msdm_train.evaluation.plots import MADE, OTHER, REAL, save_plot
from msdm_train.evaluation.tuning.candidate import front
from msdm_train.evaluation.tuning.search import Search


def plot_front(out: Path, done: Search) -> str:
    """Every setting, the front, the present default and the chosen one; returns the path relative to ``out``."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for solver in sorted({c.sampling.solver for c in done.tried}):
            of_solver = [(c, m) for c, m in done.tried.items() if c.sampling.solver == solver]
            axes.scatter([c.cost for c, _ in of_solver], [m.distance for _, m in of_solver], s=22, label=solver)
        best = front(done.tried)
        axes.step([c.cost for c in best], [done.tried[c].distance for c in best], where="post", color=REAL, lw=0.8)
        for candidate, colour, name in ((done.start, OTHER, "present default"), (done.chosen, MADE, "chosen")):
            point = (candidate.cost, done.tried[candidate].distance)
            axes.scatter(*point, s=110, facecolors="none", edgecolors=colour, linewidths=1.8, label=name)
        axes.set_xlabel("runs of the U-Net for one pair")
        axes.set_ylabel("Wasserstein distance to real (lower is closer)")
        axes.legend(frameon=False, fontsize=8)

    return save_plot(out, "front", draw, size=(6.5, 4.0))

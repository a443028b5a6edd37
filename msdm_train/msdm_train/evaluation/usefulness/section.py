"""The section ``usefulness`` of the evaluation: the report of an experiment that was run before."""

from __future__ import annotations

from typing import Any

from msdm_engine.errors import InputError
from msdm_train.evaluation.context import Context
from msdm_train.evaluation.plots import save_plot
from msdm_train.evaluation.usefulness.forest import draw_forest
from msdm_train.evaluation.usefulness.report import report_lines, report_of


def run(context: Context) -> dict[str, Any]:
    """Effects, scores and protocol of the experiment in ``context.usefulness``, whatever they say.

    It trains dozens of networks and takes hours, so it is run apart. It does not depend on the bundle that is
    evaluated: its generators are its own, because that of the bundle has seen labels of held-out fields.

    Raises:
        InputError: no folder is named, or it holds no experiment, or none of its parts was run.
    """
    if context.usefulness is None:
        raise InputError(
            "usefulness was not run",
            note="it trains a generator and five segmenters for each fold and label fraction",
            hint="run `msdm-train usefulness PACK --out RUN`, then `msdm-train evaluate ... --usefulness RUN`",
        )
    report = report_of(context.usefulness)
    if not report["parts"]["done"]:
        raise InputError(
            f"no part of the experiment in {context.usefulness} was run",
            hint=f"run `msdm-train usefulness PACK --out {context.usefulness}`",
        )
    report.pop("fields")
    plot = save_plot(context.out, "usefulness-effects", lambda f: draw_forest(f, report), size=(9.0, 6.5))
    return {**report, "summary": report_lines(report), "plots": [plot]}

"""The front of speed against quality: the report as JSON and a plot."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from msdm_engine.errors import BackendError, OutputError
from msdm_engine.output.png import write_atomically


def write_report(path: Path, document: dict[str, Any]) -> None:
    """Writes the JSON whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    _write(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def plot(path: Path, document: dict[str, Any]) -> None:
    """Final state's error over the share of matrix work below half; sets that were evaluated are marked.

    Raises:
        BackendError: matplotlib is not installed.
        OutputError: it cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendError("the plot needs matplotlib", hint="pip install 'msdm[calibrate]'") from error
    front = document["front"]
    figure = Figure(figsize=(6.0, 3.6), layout="constrained", dpi=120)
    axes = figure.subplots()
    share = [100 * candidate["share"] for candidate in front]
    axes.plot(share, [100 * candidate["measured"] for candidate in front], ".-", label="measured")
    axes.plot(share, [100 * candidate["predicted"] for candidate in front], ":", label="predicted from blocks alone")
    for within, colour, word in ((True, "tab:green", "within the budget"), (False, "tab:red", "over the budget")):
        judged = [candidate for candidate in front if candidate["within"] is within and candidate["scores"]]
        if judged:
            at = [100 * c["share"] for c in judged], [100 * c["measured"] for c in judged]
            axes.plot(*at, "o", color=colour, label=word)
    axes.set_xlabel(f"matrix work in {document['precision']}, %")
    axes.set_ylabel("relative L2 of the final state, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    _write(path, buffer.getvalue())


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}", hint="name another --report"
        ) from error

"""The state of an unfinished measurement: one file, replaced after each batch."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msdm_calibration.ranges.statistics import GraphStatistics
from msdm_engine.errors import InputError
from msdm_engine.output.png import write_atomically

STATE = "ranges.state.npz"
_HEADER = "header"


def save_state(out: Path, run: Mapping[str, Any], done: int, seen: Mapping[str, GraphStatistics]) -> None:
    """Replaces the state.

    Args:
        run: what decides the numbers.
        done: batches that are in the statistics.
    """
    header = np.frombuffer(json.dumps({"run": run, "done": done}).encode(), np.uint8)
    arrays = {f"{graph}/{name}": value for graph, one in seen.items() for name, value in one.arrays().items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{_HEADER: header}, **arrays)
    write_atomically(out / STATE, buffer.getvalue())


def load_state(out: Path, seen: Mapping[str, GraphStatistics] | None = None) -> tuple[int, dict[str, Any] | None]:
    """Batches that are done and the run that they belong to; (0, None) where there is no state.

    Args:
        seen: statistics to restore; None: only look.

    Raises:
        InputError: the file is damaged.
    """
    path = out / STATE
    if not path.exists():
        return 0, None
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file[_HEADER].tobytes())
            for graph, one in (seen or {}).items():
                names = [name for name in file.files if name.startswith(f"{graph}/")]
                one.restore({name.removeprefix(f"{graph}/"): file[name] for name in names})
        return int(header["done"]), dict(header["run"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged: {error}", hint="remove it and measure again") from error


def remove_state(out: Path) -> None:
    """After the report is written."""
    (out / STATE).unlink(missing_ok=True)

"""The log of evaluations on the split test: one for each bundle, so that nothing is chosen by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msdm_engine.errors import InputError, OutputError, RequestError
from msdm_engine.output.png import write_atomically
from msdm_train.evaluation.sections import plain, write_json

#: In the report folder: the logged run that it belongs to.
MARK = "test-run.json"

HEADER = """# Evaluations on the split `test`

One line for each run of `msdm-train evaluate --split test`, one run for each bundle: a second one needs a reason, which
stands here too. Nothing was chosen by these numbers.

| date | bundle | SHA-256 of its manifest | data | size px | reason of a further run |
|---|---|---|---|---|---|
"""


def check_test_run(log: Path | None, bundle_sha256: str, again: str) -> Path:
    """Refuses a run on test that is not logged, or that was made before without a new reason.

    Args:
        log: Markdown file; it need not exist.
        bundle_sha256: identity of the bundle.
        again: why a further run of the same bundle is made; empty: none.

    Raises:
        RequestError: no log, or a second run without a reason.
        InputError: the log cannot be read.
    """
    if log is None:
        raise RequestError(
            "an evaluation on the split test without a log",
            note="each is written down, one for each bundle",
            hint="name the file: --test-log docs/test-runs.md",
        )
    try:
        text = log.read_text(encoding="utf-8") if log.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"test log {log} cannot be read: {error}") from error
    if bundle_sha256 in text and not again.strip():
        raise RequestError(
            f"bundle {bundle_sha256[:12]} was evaluated on test before",
            note=f"{log} says so; a second look turns the test set into a validation set",
            hint="use --split val, or say why with --again 'REASON', which is logged",
        )
    return log


def log_test_run(log: Path, *, date: str, name: str, bundle_sha256: str, data: str, side_px: int, again: str) -> None:
    """Appends one line, before anything of the split is scored: a run that breaks off has looked, too.

    Raises:
        OutputError: the log cannot be written.
    """
    cells = (date, name, f"`{bundle_sha256}`", data, str(side_px), again.strip())
    line = "| " + " | ".join(" ".join(cell.split()).replace("|", "/") for cell in cells) + " |\n"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        before = log.read_text(encoding="utf-8") if log.exists() else HEADER
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"test log {log} cannot be written: {error}") from error
    write_atomically(log, (before + line).encode())


def mark_logged(out: Path, identity: Mapping[str, Any]) -> None:
    """Notes in a report folder that the run which fills it is in the log."""
    write_json(out / MARK, identity)


def logged_here(out: Path, identity: Mapping[str, Any]) -> bool:
    """Whether this very run was logged before and is only being completed.

    Raises:
        InputError: the note in the report folder cannot be read.
    """
    path = out / MARK
    if not path.is_file():
        return False
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(plain(identity))))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", hint="choose another --out") from error

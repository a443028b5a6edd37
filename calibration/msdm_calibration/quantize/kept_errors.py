"""Errors of sets of blocks, kept on disk one by one: an interrupted search goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from msdm_calibration.quantize.calibrate import Calibrated
from msdm_calibration.quantize.collect import key_of
from msdm_engine.errors import InputError, OutputError
from msdm_engine.output.png import write_atomically


class KeptErrors:
    """Relative L2 by set of blocks.

    Args:
        path: JSON file, replaced after every measurement.
        key: of all that decides an error; a file with another key is another calibration's.

    Raises:
        InputError: the file has another key, or is damaged.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._errors: dict[str, float] = {}
        if not path.exists():
            return
        try:
            stored = json.loads(path.read_text())
            kept, self._errors = stored["key"], {name: float(error) for name, error in stored["errors"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} cannot be read: {error!r}", hint="remove the file; it is made again") from error
        if kept != key:
            raise InputError(
                f"{path} is of another calibration",
                note="bundle, scales, windows, steps, batch or threads differ",
                hint="name another --out, or remove the file",
            )

    def of(self, blocks: Sequence[str], measure: Callable[[], float]) -> float:
        """The error of these blocks, in any order; measured once.

        Raises:
            OutputError: it cannot be kept.
        """
        name = " ".join(sorted(blocks))
        if name not in self._errors:
            self._errors[name] = measure()
            document = {"key": self._key, "errors": self._errors}
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self._path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
            except OSError as error:
                raise OutputError(
                    f"{self._path} cannot be written: {error.strerror or error}", hint="name another --out"
                ) from error
        return self._errors[name]


def key_of_errors(calibrated: Calibrated, windows: int) -> str:
    """Hash of conditions, trajectories and the wholly quantised graph: every other one is a part of it."""
    digest = hashlib.sha256(key_of(calibrated.subject, ()).encode())
    digest.update(calibrated.model(calibrated.choices).SerializeToString())
    digest.update(str(windows).encode())
    return digest.hexdigest()

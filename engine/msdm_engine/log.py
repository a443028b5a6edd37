"""Messages of a command: readable, or one JSON object a line for a program that watches it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from msdm_engine.errors import MsdmError


@dataclass(frozen=True)
class Log:
    """Where messages go: readable or JSON lines on standard error, the summary on standard output.

    Args:
        quiet: only errors.
        verbose: also what is being done.
        as_json: every message as one JSON object a line.
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False

    def detail(self, event: str, **values: Any) -> None:
        """Something that only ``verbose`` shows."""
        if self.verbose or self.as_json:
            self._emit(event, values, sys.stderr)

    def warning(self, event: str, text: str, **values: Any) -> None:
        """Something that the user should look at."""
        if self.as_json:
            self._emit(event, {"level": "warning", **values}, sys.stderr)
        elif not self.quiet:
            print(f"warning: {text}", file=sys.stderr)

    def summary(self, event: str, text: str, **values: Any) -> None:
        """The line at the end."""
        if self.as_json:
            self._emit(event, values, sys.stderr)
        elif not self.quiet:
            print(text)

    def error(self, error: MsdmError) -> None:
        """What went wrong, in the parts of the error."""
        if self.as_json:
            parts = {"what": error.what, "note": error.note, "hint": error.hint, "exit_code": error.exit_code}
            self._emit("error", parts, sys.stderr)
        else:
            print(f"error: {error.render()}", file=sys.stderr)

    def interrupted(self, exit_code: int) -> None:
        """After Ctrl-C."""
        hint = "everything finished so far is whole; go on with --resume"
        if self.as_json:
            self._emit("interrupted", {"hint": hint, "exit_code": exit_code}, sys.stderr)
        else:
            print(f"interrupted: {hint}", file=sys.stderr)

    def _emit(self, event: str, values: dict[str, Any], stream: Any) -> None:
        if self.as_json:
            print(json.dumps({"event": event, **values}), file=stream, flush=True)
        else:
            print(" ".join([event, *(f"{key}={value}" for key, value in values.items())]), file=stream, flush=True)

    @property
    def bar(self) -> bool:
        """Whether a progress bar is shown."""
        return not (self.quiet or self.as_json)

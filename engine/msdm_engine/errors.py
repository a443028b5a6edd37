"""Errors as interface: what failed, the value and what is legal, and what to do next.

Every error that a user can cause is an :class:`MsdmError`; the command line prints its three parts and
exits with the class's ``exit_code``. Anything else that escapes is a bug in msdm.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MsdmError(Exception):
    """Base of all errors that a user can act on.

    Args:
        what: what failed, naming the file, key or value.
        note: what is legal, or what was seen instead.
        hint: the next thing to do, as an instruction or a command.
    """

    exit_code = 1

    def __init__(self, what: str, *, note: str | None = None, hint: str | None = None) -> None:
        self.what, self.note, self.hint = what, note, hint
        super().__init__(self.render())

    def render(self) -> str:
        """The three parts, one a line."""
        lines = [self.what]
        if self.note:
            lines.append(f"  note: {self.note}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(_printable(line) for line in lines)


#: Longest part of a message.
MAX_PART = 2000


def _printable(text: str) -> str:
    """Names and values come from files: nothing in them may steer a terminal, be unprintable or fill the screen."""
    short = text if len(text) <= MAX_PART else f"{text[:MAX_PART]}... ({len(text)} characters)"
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in short)


class RequestError(MsdmError):
    """The request itself is not legal: an unknown option, key, layout, or a value out of range."""

    exit_code = 2


class BundleError(MsdmError):
    """A bundle is missing, damaged, of an unknown format, or lacks a graph."""

    exit_code = 3


class InputError(MsdmError):
    """A mask, image or data set that was handed in cannot be used."""

    exit_code = 4


class OutputError(MsdmError):
    """The output cannot be written: it exists, is read-only, or the disk is full."""

    exit_code = 5


class BackendError(MsdmError):
    """A requested backend or execution provider is missing or failed."""

    exit_code = 6


class DeviceError(BackendError):
    """A stream, event, buffer or graph was used against the rules of its device, or the device failed."""

    exit_code = 8


class DeviceMemoryError(DeviceError):
    """A device does not have the memory that was asked for."""

    exit_code = 9


class NumericsError(MsdmError):
    """A graph returned a value that is not finite; names graph, sample and step."""

    exit_code = 7


def nearest(word: str, legal: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the legal word nearest to ``word``, else the whole list of legal words."""
    legal = sorted(legal)
    close = difflib.get_close_matches(word, legal, n=1)
    if close:
        return f"did you mean '{close[0]}'? Legal: {', '.join(legal)}"
    return f"legal: {', '.join(legal)}"

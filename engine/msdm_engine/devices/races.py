"""A detector of races from the order of events alone: vector clocks over streams and host.

Each stream, and the host, has a clock that says how much it knows of every other: a submission takes over what the host
knows, a wait what the event knew when it was recorded, a host's wait likewise. Two uses of one memory, one of them a
write, race unless the later one knows of the earlier (Lamport 1978; Fidge 1988 and Mattern 1989 for the vectors). What
is found depends on the order of the calls, which a program repeats, and on no timing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HOST = "host"
#: How much is known of each stream: the number of its last piece of work that has surely happened.
Clock = dict[str, int]


@dataclass(frozen=True)
class Finding:
    """A hazard: what, on which memory, between whom, and what would order them."""

    kind: str
    buffer: str
    work: str
    stream: str
    other_work: str
    other_stream: str
    remedy: str

    def __str__(self) -> str:
        by = f"'{self.work}' on {self.stream}"
        other = f" and '{self.other_work}' on {self.other_stream}" if self.other_work else ""
        return f"{self.kind}: '{self.buffer}', {by}{other}; {self.remedy}"


@dataclass(frozen=True)
class Use:
    """One use of a piece of memory."""

    work: str
    buffer: str
    stream: str
    time: int
    start: int
    end: int
    writes: bool

    def meets(self, start: int, end: int) -> bool:
        """Whether it touches any of these bytes."""
        return self.start < end and start < self.end


@dataclass
class History:
    """Uses of one memory that a later one may race with."""

    uses: list[Use] = field(default_factory=list)
    written: list[tuple[int, int]] = field(default_factory=list)
    unwritten_reads: list[Use] = field(default_factory=list)
    freed_by: str | None = None


class Races:
    """Takes note of submissions, waits and uses, and collects findings, each once."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._clocks: dict[str, Clock] = {HOST: {}}
        self._records: list[tuple[str, str, int]] = []

    def submit(self, stream: str) -> int:
        """The next piece of work of a stream, which knows all that the host knows; its number."""
        clock = self._clocks.setdefault(stream, {})
        if stream != HOST:
            _join(clock, self._clocks[HOST])
        clock[stream] = clock.get(stream, 0) + 1
        return clock[stream]

    def record(self, stream: str, event: str) -> Clock:
        """What an event knows that is recorded now."""
        self._records.append((event, stream, self.submit(stream)))
        return dict(self._clocks[stream])

    def learn(self, who: str, known: Mapping[str, int]) -> None:
        """A stream or the host waited for an event that knew this."""
        _join(self._clocks.setdefault(who, {}), known)

    def known(self, stream: str) -> Clock:
        """What a stream knows now."""
        return dict(self._clocks.setdefault(stream, {}))

    def knows(self, who: str, clock: Mapping[str, int]) -> bool:
        """Whether it has happened before, for ``who``."""
        mine = self._clocks.setdefault(who, {})
        return all(mine.get(stream, 0) >= time for stream, time in clock.items())

    def use(self, history: History, use: Use) -> None:
        """Compares a use with the earlier ones of the same memory."""
        clock = self._clocks[use.stream]
        if history.freed_by is not None:
            self._find("use after free", use, None, f"free '{history.freed_by}' later")
        for before in history.uses:
            matters = before.meets(use.start, use.end) and (use.writes or before.writes)
            if matters and clock.get(before.stream, 0) < before.time:
                self._find(_kind(use, before), use, before, self._remedy(use, before))
        if use.writes:
            for read in history.unwritten_reads:
                if read.meets(use.start, use.end):
                    self._find("read before write", read, use, "write it first")
            history.written.append((use.start, use.end))
            # What is written over is ordered before this one now, or has been found.
            history.uses = [u for u in history.uses if not (use.start <= u.start and u.end <= use.end)]
        elif not any(start < use.end and use.start < end for start, end in history.written):
            history.unwritten_reads.append(use)
        history.uses.append(use)

    def free(self, history: History, name: str) -> None:
        """The host frees a memory; all its uses must be known to it."""
        clock = self._clocks[HOST]
        for before in history.uses:
            if clock.get(before.stream, 0) < before.time:
                by = Use("free", name, HOST, 0, before.start, before.end, True)
                self._find("free while in flight", by, before, self._remedy(by, before))
        history.freed_by = name

    def find(self, kind: str, work: str, stream: str, buffer: str, remedy: str) -> None:
        """Something else that the rules forbid."""
        self._add(Finding(kind, buffer, work, stream, "", "", remedy))

    def _find(self, kind: str, use: Use, before: Use | None, remedy: str) -> None:
        other = ("", "") if before is None else (before.work, before.stream)
        self._add(Finding(kind, use.buffer, use.work, use.stream, *other, remedy))

    def _add(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)

    def _remedy(self, use: Use, before: Use) -> str:
        """The event that is there and was not waited for, or the one that is missing."""
        there = [event for event, stream, time in self._records if stream == before.stream and time > before.time]
        event = f"'{there[0]}'" if there else "an event to be recorded"
        where = "let the host wait" if use.stream == HOST else f"let {use.stream} wait before '{use.work}'"
        return f"{where} for {event} on {before.stream} after '{before.work}'"


def _kind(use: Use, before: Use) -> str:
    if HOST in (use.stream, before.stream):
        return "host touch in flight"
    if not use.writes:
        return "missing event"
    return "overwrite while read" if not before.writes else "overwrite while written"


def _join(clock: Clock, other: Mapping[str, int]) -> None:
    for stream, time in other.items():
        clock[stream] = max(clock.get(stream, 0), time)

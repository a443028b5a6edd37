"""Where the time of a pipeline goes: each stage's busy, starved and blocked seconds.

    clocks = StageClocks()
    clock = clocks.stage("encode")
    with clock.starved():       # waits for something to do
        pair = queue.get()
    with clock.busy():          # works
        data = encode(pair)
    with clock.blocked():       # waits for somebody to take it
        out.put(data)

A stage that is always busy is what the pipeline waits for. Nothing of this reaches the bytes of a set.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, astuple, dataclass
from typing import Any

BUSY, STARVED, BLOCKED = "busy", "starved", "blocked"


@dataclass(frozen=True)
class StageTimes:
    """Seconds of one stage, summed over its threads; only what has ended is counted.

    Args:
        busy_s: working.
        starved_s: waiting for the stage before.
        blocked_s: waiting for the stage behind.
        runs: how often it worked.
    """

    busy_s: float = 0.0
    starved_s: float = 0.0
    blocked_s: float = 0.0
    runs: int = 0

    @property
    def utilisation(self) -> float:
        """Busy share of the time told, 0 to 1; 0 if none was told."""
        told = self.busy_s + self.starved_s + self.blocked_s
        return self.busy_s / told if told else 0.0

    def __add__(self, other: StageTimes) -> StageTimes:
        """Of both: the same stage of another part of the pipeline."""
        return StageTimes(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, before: StageTimes) -> StageTimes:
        """Since ``before``."""
        return StageTimes(*(now - then for now, then in zip(astuple(self), astuple(before), strict=True)))

    def __str__(self) -> str:
        return (
            f"busy {self.busy_s:.2f} s ({self.utilisation:.0%}), starved {self.starved_s:.2f} s, "
            f"blocked {self.blocked_s:.2f} s, {self.runs} run(s)"
        )

    def as_dict(self) -> dict[str, float]:
        """For JSON: seconds to the microsecond, utilisation to three digits."""
        rounded = {name: round(value, 6) for name, value in asdict(self).items()}
        return rounded | {"utilisation": round(self.utilisation, 3)}


class StageClock:
    """The clock of one stage; any number of threads may use it at once.

    A state that begins within another one of the same thread and clock interrupts it: no second is counted twice. A
    state belongs to its thread and ends where it began: do not hold one across a ``yield``.

    Args:
        now: seconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._seconds = dict.fromkeys((BUSY, STARVED, BLOCKED), 0.0)
        self._runs = 0
        self._mine = threading.local()

    def busy(self) -> AbstractContextManager[None]:
        """While the stage works."""
        return self._in(BUSY)

    def starved(self) -> AbstractContextManager[None]:
        """While it waits for the stage before."""
        return self._in(STARVED)

    def blocked(self) -> AbstractContextManager[None]:
        """While it waits for the stage behind."""
        return self._in(BLOCKED)

    def times(self) -> StageTimes:
        """The sums so far."""
        with self._lock:
            return StageTimes(self._seconds[BUSY], self._seconds[STARVED], self._seconds[BLOCKED], self._runs)

    @contextmanager
    def _in(self, state: str) -> Iterator[None]:
        if not hasattr(self._mine, "states"):
            self._mine.states, self._mine.since = [], 0.0
        self._turn()
        self._mine.states.append(state)
        try:
            yield
        finally:
            self._turn()
            self._mine.states.pop()
            with self._lock:
                self._runs += state == BUSY

    def _turn(self) -> None:
        """Credits the time since the last turn of this thread to the state that it was in."""
        now = self._now()
        if self._mine.states:
            with self._lock:
                self._seconds[self._mine.states[-1]] += now - self._mine.since
        self._mine.since = now


class StageClocks:
    """The clocks of a pipeline by the names of their stages, in the order in which they were first asked for."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._clocks: dict[str, StageClock] = {}

    def stage(self, name: str) -> StageClock:
        """The clock of that stage; made when it is first asked for."""
        with self._lock:
            return self._clocks.setdefault(name, StageClock(self._now))

    def times(self) -> dict[str, StageTimes]:
        """The sums of each stage so far."""
        with self._lock:
            clocks = dict(self._clocks)
        return {name: clock.times() for name, clock in clocks.items()}

    def as_dict(self) -> dict[str, Any]:
        """For JSON, by stage."""
        return {name: times.as_dict() for name, times in self.times().items()}

    def text(self) -> str:
        """For people, a line a stage; empty if there is none."""
        return "\n".join(f"stage {name}: {times}" for name, times in self.times().items())

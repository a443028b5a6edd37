"""Batches side by side on the host's cores, each with streams, buffers and threads of its own.

A graph that one batch runs on all cores waits after each operator for the slowest core. Batches that have a core each
do not wait for one another. Pixels depend on the threads of one batch only: not on how many run beside it, so with one
thread a batch, not on how many cores there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import cycle
from queue import SimpleQueue
from threading import Thread

from msdm_engine.cores import cores
from msdm_engine.errors import RequestError
from msdm_engine.pairs import Pair, PairRequest
from msdm_engine.pipeline.batches import Batches, Placed

#: Makes pairs of requests, in their order and with their places; every member has one of its own.
Sample = Callable[[Iterator[PairRequest]], Iterator[Placed]]
#: Batches that a member has at most: the two of its pipeline, and one that waits.
AHEAD = 3
MAX_PARALLEL = 1024


def share_cores(threads: int, parallel: int) -> tuple[int, int]:
    """Threads of a batch and batches side by side; 0 is for the engine to choose.

    Chosen are as many batches as the cores have room for, on one thread each unless the caller says otherwise.

    Raises:
        RequestError: a number out of range.
    """
    for name, value in (("threads", threads), ("batches side by side", parallel)):
        if not 0 <= value <= MAX_PARALLEL:
            raise RequestError(f"{value} {name}", note=f"0 (the engine chooses) to {MAX_PARALLEL}")
    if parallel and not threads:
        return max(1, cores() // parallel), parallel
    threads = threads or 1
    return threads, parallel or max(1, cores() // threads)


def side_by_side(samples: Sequence[Sample], batches: Batches) -> Generator[Placed]:
    """All pairs in the order of the batches, with their places; batches go to the members in turns.

    Requests are taken in the caller's thread, :data:`AHEAD` batches a member ahead of the pairs. What fails is raised
    after the pairs that come before it.
    """
    members = [Member(sample, f"msdm-member-{number}") for number, sample in enumerate(samples)]
    turns, under_way = cycle(members), deque[tuple[Member, tuple[int, ...]]]()
    failure: Exception | None = None
    ended = False
    try:
        while True:
            while not ended and len(under_way) < AHEAD * len(members):
                try:
                    batch = batches.next()
                except Exception as error:  # noqa: BLE001 (raised below)
                    batch, failure = None, error
                if batch is None:
                    ended = True
                    for member in members:
                        member.end()
                    break
                member = next(turns)
                member.feed(batch.requests)
                under_way.append((member, batch.places))
            if not under_way:
                break
            member, places = under_way.popleft()
            for place in places:
                yield place, member.take()
        if failure is not None:
            raise failure
    finally:
        for member in members:
            member.stop()
        for member in members:
            member.join()


class Member:
    """A thread that samples what it is fed; it starts with the first request. Errors come in the place of a pair."""

    def __init__(self, sample: Sample, name: str) -> None:
        self._fed: SimpleQueue[PairRequest | None] = SimpleQueue()
        self._made: SimpleQueue[Pair | BaseException] = SimpleQueue()
        self._sample, self._started, self._stopped = sample, False, False
        self._thread = Thread(target=self._serve, name=name, daemon=True)

    def feed(self, requests: Sequence[PairRequest]) -> None:
        """Hands requests over."""
        for request in requests:
            self._fed.put(request)
        if not self._started:  # and no second time: it may have ended with an error that nobody has taken yet
            self._started = True
            self._thread.start()

    def end(self) -> None:
        """No more requests will come."""
        self._fed.put(None)

    def stop(self) -> None:
        """Nobody wants further pairs; what is under way is dropped after the next one."""
        self._stopped = True
        self._fed.put(None)

    def take(self) -> Pair:
        """The next pair; waits for it, and raises what failed in its place."""
        made = self._made.get()
        if isinstance(made, BaseException):
            raise made
        return made

    def join(self) -> None:
        """Waits for the thread's end, after :meth:`end` or :meth:`stop`."""
        if self._thread.is_alive():
            self._thread.join()

    def _requests(self) -> Iterator[PairRequest]:
        while (request := self._fed.get()) is not None and not self._stopped:
            yield request

    def _serve(self) -> None:
        pairs = self._sample(self._requests())
        try:
            for _, pair in pairs:  # places among its own requests, of which nobody knows
                self._made.put(pair)
                if self._stopped:
                    break
        except BaseException as error:  # noqa: BLE001 (it belongs to who takes the pairs)
            self._made.put(error)
        finally:
            close = getattr(pairs, "close", None)
            if close is not None:
                close()

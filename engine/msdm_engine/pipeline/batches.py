"""Requests taken as batches of one size, though sizes alternate; and results brought back into their order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from msdm_engine.pairs import Pair, PairRequest

Size = tuple[int, int]
#: A pair with the place of its request among all.
Placed = tuple[int, Pair]
Item = TypeVar("Item")
#: While a batch is filled, requests of other sizes wait: at most so many batches of them, and so many pixels, of which
#: each takes 4 bytes while its request waits, and 17 as a finished pair with what the critic saw.
BATCHES_WAITING, MAX_WAITING_PX = 8, 2**24


def size_of(request: PairRequest) -> Size:
    """Height and width in px."""
    return request.height_px, request.width_px


class Gather(Generic[Item]):
    """Takes items of one size together, the oldest first, and looks ahead for more of its size.

    Args:
        size_of: height and width of an item.
        waiting: items of other sizes that may wait meanwhile; 1: only neighbours are taken together.
    """

    def __init__(self, items: Iterable[Item], size_of: Callable[[Item], Size], waiting: int) -> None:
        self._fresh, self._size_of, self._most = iter(items), size_of, waiting
        #: with their places in the order of all items; the oldest first
        self._waiting: list[tuple[int, Item]] = []
        self._place = 0
        self._failure: Exception | None = None

    def next(self, limit: Callable[[Size], int]) -> list[tuple[int, Item]]:
        """Up to ``limit(size)`` items of one size, with their places; none: there are no more.

        Nothing is read beyond the item that completes them. What an error of the items comes after is given out
        first; the error comes when nothing else is left.
        """
        if not self._waiting and not self._read():
            if self._failure is not None:
                raise self._failure
            return []
        size = self._size_of(self._waiting[0][1])
        count = limit(size)
        others = [area for one, area in map(self._sized, self._waiting) if one != size]
        same, others_px = len(self._waiting) - len(others), sum(others)
        while same < count and len(self._waiting) - same < self._most and others_px < MAX_WAITING_PX and self._read():
            one, area = self._sized(self._waiting[-1])
            same, others_px = (same + 1, others_px) if one == size else (same, others_px + area)
        taken = [one for one in self._waiting if self._sized(one)[0] == size][:count]
        places = {place for place, _ in taken}
        self._waiting = [one for one in self._waiting if one[0] not in places]
        return taken

    def put_back(self, items: Iterable[tuple[int, Item]]) -> None:
        """Takes up again what :meth:`next` gave out."""
        self._waiting = sorted([*items, *self._waiting], key=lambda one: one[0])

    def _sized(self, one: tuple[int, Item]) -> tuple[Size, int]:
        """Size of an item, and its pixels."""
        height, width = self._size_of(one[1])
        return (height, width), height * width

    def _read(self) -> bool:
        """Lets the next item of all wait with the others; False: there is none, or it failed."""
        if self._failure is not None:
            return False
        try:
            item = next(self._fresh)
        except StopIteration:
            return False
        except Exception as error:  # noqa: BLE001 (raised by `next`)
            self._failure = error
            return False
        self._waiting.append((self._place, item))
        self._place += 1
        return True


def gathered(sizes: Iterable[Size], batch: int) -> Generator[tuple[Size, int]]:
    """The batches of these sizes, in their order: size and number of pairs of each."""
    gather = Gather(sizes, lambda size: size, BATCHES_WAITING * batch)
    while taken := gather.next(lambda _: batch):
        yield taken[0][1], len(taken)


@dataclass(frozen=True)
class Batch:
    """Requests of one size that are sampled together.

    Args:
        requests: at least one, at most ``size``.
        size: of the compiled shape. A shorter batch is filled up with copies of its last request, because the shape
            decides the last bits of a pixel.
        places: of the requests in the order of all requests.
    """

    requests: tuple[PairRequest, ...]
    size: int
    places: tuple[int, ...]

    @property
    def filled(self) -> tuple[PairRequest, ...]:
        """As many requests as the shape has."""
        return (*self.requests, *[self.requests[-1]] * (self.size - len(self.requests)))


class Batches:
    """Requests of one size share a batch: neighbours, and those that a bounded look ahead finds.

    Args:
        largest: pairs in a batch at most.
        limits: smaller numbers for sizes of which fewer fit the memory; looked at when a batch is begun.
        neighbours: only these share one, so that pairs come in the order of the requests.
    """

    def __init__(
        self, requests: Iterable[PairRequest], largest: int, limits: dict[Size, int], *, neighbours: bool = False
    ) -> None:
        self._gather = Gather(requests, size_of, 1 if neighbours else BATCHES_WAITING * largest)
        self._largest, self._limits = largest, limits

    def _limit(self, size: Size) -> int:
        return min(self._largest, self._limits.get(size, self._largest))

    def next(self) -> Batch | None:
        """The next batch; None: there is none.

        A full batch is not held back to look at the request after it. What an error of the requests comes after is
        sampled; the error comes when nothing else is left.
        """
        taken = self._gather.next(self._limit)
        if not taken:
            return None
        places, requests = zip(*taken, strict=True)
        return Batch(requests, self._limit(size_of(requests[0])), places)

    def put_back(self, batch: Batch) -> None:
        """Takes up a batch again, before what came after it."""
        self._gather.put_back(zip(batch.places, batch.requests, strict=True))


def in_order(placed: Generator[Placed]) -> Generator[Pair]:
    """Pairs as the batches made them -> in the order of the requests; a pair that is early waits."""
    early: dict[int, Pair] = {}
    turn = 0
    with closing(placed):
        for place, pair in placed:
            early[place] = pair
            while turn in early:
                yield early.pop(turn)
                turn += 1

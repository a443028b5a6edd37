"""Requests taken as batches of one size, in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from msdm_engine.pairs import PairRequest

Size = tuple[int, int]


def size_of(request: PairRequest) -> Size:
    """Height and width in px."""
    return request.height_px, request.width_px


@dataclass(frozen=True)
class Batch:
    """Requests of one size that are sampled together.

    Args:
        requests: at least one, at most ``size``.
        size: of the compiled shape. A shorter batch is filled up with copies of its last request, because the shape
            decides the last bits of a pixel.
    """

    requests: tuple[PairRequest, ...]
    size: int

    @property
    def filled(self) -> tuple[PairRequest, ...]:
        """As many requests as the shape has."""
        return (*self.requests, *[self.requests[-1]] * (self.size - len(self.requests)))


class Batches:
    """Consecutive requests of one size share a batch.

    Args:
        largest: pairs in a batch at most.
        limits: smaller numbers for sizes of which fewer fit the memory; looked at when a batch is begun.
    """

    def __init__(self, requests: Iterable[PairRequest], largest: int, limits: dict[Size, int]) -> None:
        self._fresh = iter(requests)
        self._largest, self._limits = largest, limits
        self._back: deque[PairRequest] = deque()

    def put_back(self, requests: Sequence[PairRequest]) -> None:
        """Takes requests up again before all others, in their order."""
        self._back.extendleft(reversed(requests))

    def next(self) -> Batch | None:
        """The next batch; None: there is none.

        A full batch is not held back to look at the request after it. What an error of the requests comes after is
        a batch still; the error comes when the next one is asked for.
        """
        taken: list[PairRequest] = []
        limit = self._largest
        while len(taken) < limit:
            try:
                request = self._back.popleft() if self._back else next(self._fresh, None)
            except Exception as error:
                if not taken:
                    raise
                self._fresh = _raising(error)
                break
            if request is None:
                break
            if not taken:
                limit = min(self._largest, self._limits.get(size_of(request), self._largest))
            elif size_of(request) != size_of(taken[0]):
                self._back.appendleft(request)
                break
            taken.append(request)
        return Batch(tuple(taken), limit) if taken else None


def _raising(error: Exception) -> Iterator[PairRequest]:
    raise error
    yield

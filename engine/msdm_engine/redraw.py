"""Pairs that fall below an agreement are drawn again from other noise, a bounded number of times."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from msdm_engine.bundle.manifest import Manifest, Sampling
from msdm_engine.contract import CRITIC
from msdm_engine.critic import Acceptance
from msdm_engine.engine import Engine
from msdm_engine.errors import RequestError
from msdm_engine.pairs import Pair, PairRequest
from msdm_engine.pipeline.batches import MAX_WAITING_PX
from msdm_engine.requests.request import SetRequest
from msdm_engine.sampling.guidance import Guidance


def check_has_critic(manifest: Manifest) -> None:
    """Raises RequestError if pairs of this bundle cannot be scored."""
    if CRITIC not in manifest.graphs:
        raise RequestError(
            f"a least agreement is asked for, and the bundle {manifest.name} has no critic",
            note="`msdm-engine show` says what a bundle holds",
            hint="add one: msdm-export critic BUNDLE --from SEGMENTER --out NEW_BUNDLE; or leave min_agreement out",
        )


def check_critic_is_asked(request: SetRequest, critic: bool) -> None:
    """Raises RequestError if a least agreement is asked for and the critic is off."""
    if not critic and any(group.acceptance is not None for group in request.groups):
        raise RequestError("a least agreement is asked for, and the critic is off", hint="leave --no-critic out")


def sample_accepted(
    engine: Engine,
    requests: Iterable[PairRequest],
    acceptance: Acceptance,
    sampling: Sampling | None = None,
    guidance: Guidance | None = None,
) -> Iterator[Pair]:
    """As :meth:`Engine.sample`, and a pair below the agreement is drawn again, as its attempts 1, 2 and on.

    The first draw that reaches it is kept; if none does, the one of largest Dice, the earliest of equals, with
    ``accepted=False``. A pair depends on its own request alone: not on the others, their order or the batch's filling.
    Draws of one size share their batches with those that are drawn for the first time, so a pair that is drawn again
    comes later than its request.

    Args:
        requests: their numbers differ; first attempts all.

    Raises:
        RequestError: the bundle has no critic. Others as :meth:`Engine.sample`.
    """
    check_has_critic(engine.bundle.manifest)
    line = _Line(iter(requests))
    best: dict[int, Pair] = {}
    while line.goes_on():
        for pair in engine.sample(line.draws(), sampling, guidance):
            index, attempt = pair.request.index, pair.request.attempt
            accepted = _dice(pair) >= acceptance.at_least
            before = best.pop(index, None)
            kept = pair if before is None or _dice(pair) > _dice(before) else before
            if accepted or attempt == acceptance.redraws:
                yield replace(kept, draws=attempt + 1, accepted=accepted)
            else:
                best[index] = kept
                line.again(replace(pair.request, attempt=attempt + 1))


def _dice(pair: Pair) -> float:
    assert pair.agreement is not None  # the bundle has a critic
    return pair.agreement.dice


class _Line:
    """What is drawn next: what waits to be drawn again as soon as a batch of its size is open, else the next pair."""

    def __init__(self, fresh: Iterator[PairRequest]) -> None:
        self._fresh = fresh
        self._waiting: dict[tuple[int, int], deque[PairRequest]] = {}
        self._ended = False

    def goes_on(self) -> bool:
        return not self._ended or any(self._waiting.values())

    def again(self, request: PairRequest) -> None:
        self._waiting.setdefault((request.height_px, request.width_px), deque()).append(request)

    def draws(self) -> Iterator[PairRequest]:
        size = None
        while True:
            if size is not None and self._waiting.get(size):
                yield self._waiting[size].popleft()
                continue
            full = sum(h * w * len(queue) for (h, w), queue in self._waiting.items()) >= MAX_WAITING_PX
            request = None if full else next(self._fresh, None)
            if request is None:
                self._ended = self._ended or not full
                break
            size = (request.height_px, request.width_px)
            yield request
        for queue in [*self._waiting.values()]:  # a size may be new while this waits; the next round takes it
            while queue:
                yield queue.popleft()


@dataclass
class Redrawn:
    """How many pairs were drawn again, and how many did not reach the agreement for all that."""

    redrawn: int = 0
    draws: int = 0
    below: int = 0

    def count(self, pair: Pair) -> None:
        """Takes a pair in."""
        self.redrawn += pair.draws > 1
        self.draws += pair.draws
        self.below += pair.accepted is False

    def text(self) -> str:
        """For people."""
        return f"{self.redrawn} drawn again ({self.draws} draws in all), {self.below} below the agreement asked for"

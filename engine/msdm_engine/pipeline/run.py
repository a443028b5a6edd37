"""One run: batches one after another, two of them under way, pairs in the order of their requests.

While the steps of batch k run, the host finishes batch k - 1 and prepares batch k + 1; what the device does meanwhile
says :mod:`~msdm_engine.pipeline.order`. Where the host makes the noise of each step it is a few steps ahead only, so it
looks for the end of batch k - 1 when the first segments of batch k are submitted, and hands its pairs over when all
are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from msdm_engine.errors import DeviceMemoryError
from msdm_engine.guidance import Guidance
from msdm_engine.manifest import Sampling
from msdm_engine.pairs import Pair
from msdm_engine.pipeline.batches import Batch, Batches, size_of
from msdm_engine.pipeline.conditions import Conditions, write_noise, write_start
from msdm_engine.pipeline.handover import check_results, judged, pairs_of, write_pictures
from msdm_engine.pipeline.memory import DoesNotFit
from msdm_engine.pipeline.order import Order
from msdm_engine.pipeline.runtime import Runtime
from msdm_engine.pipeline.setting import Setting


@dataclass
class Flight:
    """A batch under way in a slot of a lane."""

    batch: Batch
    order: Order
    slot: int
    pairs: list[Pair] = field(default_factory=list)


class Run:
    """Samples batches.

    Args:
        critic_stride: of the bundle's critic in px; None: it is not asked.
    """

    def __init__(
        self,
        runtime: Runtime,
        conditions: Conditions,
        sampling: Sampling,
        guidance: Guidance,
        critic_stride: int | None,
    ) -> None:
        self._runtime, self._conditions = runtime, conditions
        self._sampling, self._guidance, self._stride = sampling, guidance, critic_stride
        self._orders: list[Order] = []

    def pairs(self, batches: Batches) -> Iterator[Pair]:
        """All pairs; see :meth:`msdm_engine.Engine.sample`."""
        try:
            yield from self._all(batches)
        except GeneratorExit:  # the caller wants no more
            self._settle(keep=True)
            raise
        except BaseException:
            self._settle(keep=False)
            raise
        self._settle(keep=True)

    def _all(self, batches: Batches) -> Iterator[Pair]:
        """Before an error is raised, the batches before the one that failed are handed over."""
        before: Flight | None = None
        while True:
            batch = flight = failure = None
            try:
                batch = batches.next()
                if batch is not None:
                    flight = self._board(batch, before)
                    self._begin(flight)
            except Exception as error:  # noqa: BLE001 (raised below)
                failure = error
            try:
                if before is not None:
                    self._finish(before)
                    if flight is not None and failure is None:
                        failure = self._steps_left(flight)
                    self._see(before)
                elif flight is not None and failure is None:
                    failure = self._steps_left(flight)
            except DeviceMemoryError as error:
                assert before is not None  # nothing else raises there
                self._again(error, [before.batch, *filter(None, [batch])], batches, alone=False)
                before = None
                continue
            if before is not None:
                yield from before.pairs
                self._check_in_unless(before.order, flight)
            if isinstance(failure, DeviceMemoryError) and batch is not None:
                self._again(failure, [batch], batches, alone=before is None)
                before = None
                continue
            if failure is not None:
                raise failure
            before = flight
            if before is None:
                return

    def _board(self, batch: Batch, before: Flight | None) -> Flight:
        """A place for a batch: the other slot of the lane that the batch before has, else a lane of its own."""
        critic = self._stride is not None
        setting = Setting.of(size_of(batch.requests[0]), batch.size, self._sampling, self._guidance, critic)
        if before is not None and before.order.lane.setting == setting:
            return Flight(batch, before.order, 1 - before.slot)
        order = self._runtime.check_out(setting)
        self._orders.append(order)
        return Flight(batch, order, 0)

    def _begin(self, flight: Flight) -> None:
        """Conditions, initial state and the first segments: as many as the host makes noise ahead for."""
        lane = flight.order.lane
        given = {name: staged.host.array() for name, staged in lane.slots[flight.slot].given.items()}
        self._conditions.write(flight.batch.filled, lane.setting.own_branches, given)
        write_start(flight.batch.filled, lane.setting.sigma_max, given["start"])
        flight.order.begin(flight.slot)
        self._steps(flight, range(lane.needs.ahead))

    def _steps_left(self, flight: Flight) -> Exception | None:
        """The rest of the trajectory. An error is returned: the batch before is handed over first."""
        try:
            self._steps(flight, range(flight.order.lane.needs.ahead, len(flight.order.lane.needs.segments)))
            flight.order.end(flight.slot)
        except Exception as error:  # noqa: BLE001 (raised by who called)
            return error
        return None

    def _steps(self, flight: Flight, segments: range) -> None:
        requests = flight.batch.filled
        for segment in segments:
            flight.order.steps(flight.slot, segment, lambda row, into: write_noise(requests, row + 1, into))

    def _finish(self, flight: Flight) -> None:
        """Makes pairs of the last state, which the host waits for, and shows them to the critic.

        Here the finished state lies in ``final[slot]`` on the device, and stays until the slot's next batch begins:
        the place to hand it over without a copy.
        """
        lane, requests = flight.order.lane, flight.batch.requests
        slot = lane.slots[flight.slot]
        flight.order.wait_for_state(flight.slot)
        results: dict[str, np.ndarray] = {name: staged.host.array() for name, staged in slot.results.items()}
        check_results(lane.setting, requests, results)
        flight.pairs = pairs_of(lane.setting, requests, results["final"])
        if flight.batch.size != self._sampling.batch:
            flight.pairs = [replace(pair, halved_batch=flight.batch.size) for pair in flight.pairs]
        if self._stride is not None:
            assert slot.picture is not None  # of a lane with a critic
            write_pictures(flight.pairs, self._stride, slot.picture.host.array())
            flight.order.judge(flight.slot)

    def _see(self, flight: Flight) -> None:
        """Adds what the critic saw, which the host waits for."""
        if self._stride is not None:
            seen = flight.order.lane.slots[flight.slot].seen
            assert seen is not None  # of a lane with a critic
            flight.order.wait_for_critic(flight.slot)
            flight.pairs = judged(flight.pairs, seen.host.array())

    def _again(self, error: DeviceMemoryError, failed: Sequence[Batch], batches: Batches, *, alone: bool) -> None:
        """Puts requests back and halves the batch of their size; what does not fit even alone is raised.

        Args:
            failed: the first of them is the one for which there was no memory.
            alone: whether no other batch was under way, whose lane may have been what filled the memory.
        """
        first = failed[0]
        if isinstance(error, DoesNotFit):
            if alone:
                raise error
        elif first.size == 1:
            raise error
        else:
            self._runtime.limits[size_of(first.requests[0])] = first.size // 2
        self._settle(keep=False)
        batches.put_back([request for batch in failed for request in batch.requests])

    def _check_in_unless(self, order: Order, flight: Flight | None) -> None:
        """Gives a lane back, unless the next batch is in it."""
        if flight is None or flight.order is not order:
            self._orders.remove(order)
            self._runtime.check_in(order)

    def _settle(self, *, keep: bool) -> None:
        """Nothing of this run is under way afterwards: what has not begun is not done any more."""
        for order in self._orders:
            order.lane.dropped = True
        for stream in self._runtime.streams.all() if self._orders else ():
            with suppress(Exception):  # failures of what nobody waits for
                stream.synchronize()
        while self._orders:
            order = self._orders.pop()
            if keep:
                self._runtime.check_in(order)
            else:
                order.lane.close()

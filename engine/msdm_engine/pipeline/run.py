"""One run: batches one after another, two of them under way, pairs in the order of their requests.

While the steps of batch k run, the host finishes batch k - 1 and prepares batch k + 1; what the device does meanwhile
says :mod:`~msdm_engine.pipeline.order`. Where the host makes the noise of each step it is a few steps ahead only, so it
looks for the end of batch k - 1 when the first segments of batch k are submitted, and hands its pairs over when all
are.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Generic

import numpy as np

from msdm_engine.bundle.manifest import Sampling
from msdm_engine.errors import DeviceMemoryError
from msdm_engine.pipeline.batches import Batch, Batches, size_of
from msdm_engine.pipeline.conditions import Conditions, write_noise, write_start
from msdm_engine.pipeline.flight import Flight, HandOver, Made
from msdm_engine.pipeline.memory import DoesNotFit
from msdm_engine.pipeline.order import Order
from msdm_engine.pipeline.replay import check_last_state
from msdm_engine.pipeline.runtime import Runtime
from msdm_engine.pipeline.setting import Setting
from msdm_engine.sampling.guidance import Guidance


class Run(Generic[Made]):
    """Samples batches.

    Args:
        hand_over: what is made of them: pairs on the host, or arrays on the device.
    """

    def __init__(
        self,
        runtime: Runtime,
        conditions: Conditions,
        sampling: Sampling,
        guidance: Guidance,
        hand_over: HandOver[Made],
    ) -> None:
        self._runtime, self._conditions = runtime, conditions
        self._sampling, self._guidance, self._hand_over = sampling, guidance, hand_over
        self._orders: list[Order] = []
        self._prepare, self._finishing = (runtime.clocks.stage(name) for name in ("prepare", "hand over"))

    def all(self, batches: Batches) -> Generator[Made]:
        """What is made of all batches; see :meth:`msdm_engine.Engine.sample`."""
        try:
            yield from self._all(batches)
        except GeneratorExit:  # the caller wants no more
            self._settle(keep=True)
            raise
        except BaseException:
            self._settle(keep=False)
            raise
        self._settle(keep=True)

    def _all(self, batches: Batches) -> Generator[Made]:
        """Before an error is raised, the batches before the one that failed are handed over."""
        before: Flight[Made] | None = None
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
                yield from before.made
                if flight is not None and failure is None:
                    self._hand_over.taken(before)
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

    def _board(self, batch: Batch, before: Flight[Made] | None) -> Flight[Made]:
        """A place for a batch: the other slot of the lane that the batch before has, else a lane of its own."""
        critic, size = self._hand_over.asks_critic, size_of(batch.requests[0])
        setting = Setting.of(size, batch.size, self._sampling, self._guidance, critic)
        if before is not None and before.order.lane.setting == setting:
            return Flight(batch, before.order, 1 - before.slot)
        order = self._runtime.check_out(setting)
        self._orders.append(order)
        return Flight(batch, order, 0)

    def _begin(self, flight: Flight[Made]) -> None:
        """Conditions, initial state and the first segments: as many as the host makes noise ahead for."""
        lane = flight.order.lane
        given = {name: staged.host.array() for name, staged in lane.slots[flight.slot].given.items()}
        with self._prepare.busy():
            self._conditions.write(flight.batch.filled, lane.setting.own_branches, given)
            write_start(flight.batch.filled, lane.setting.sigma_max, given["start"])
        flight.order.begin(flight.slot)
        self._steps(flight, range(lane.needs.ahead))

    def _steps_left(self, flight: Flight[Made]) -> Exception | None:
        """The rest of the trajectory. An error is returned: the batch before is handed over first."""
        try:
            self._steps(flight, range(flight.order.lane.needs.ahead, len(flight.order.lane.needs.segments)))
            flight.order.end(flight.slot)
        except Exception as error:  # noqa: BLE001 (raised by who called)
            return error
        return None

    def _steps(self, flight: Flight[Made], segments: range) -> None:
        def noise(row: int, into: np.ndarray) -> None:
            with self._prepare.busy():
                write_noise(flight.batch.filled, row + 1, into)

        with self._prepare.blocked():  # where it waits for a pinned row, which the steps have not come to
            for segment in segments:
                flight.order.steps(flight.slot, segment, noise)

    def _finish(self, flight: Flight[Made]) -> None:
        """Looks at the last state, which the host waits for, and makes of it what is handed over."""
        with self._finishing.starved():
            flight.order.wait_for_state(flight.slot)
        with self._finishing.busy():
            check_last_state(flight.batch, flight.order.lane, flight.slot, self._conditions, self._runtime.backend)
            self._hand_over.finish(flight)

    def _see(self, flight: Flight[Made]) -> None:
        """Adds what the critic saw, which the host waits for."""
        if self._hand_over.asks_critic:
            with self._finishing.starved():
                flight.order.wait_for_critic(flight.slot)
            self._hand_over.judge(flight)

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
        for batch in failed:
            batches.put_back(batch)

    def _check_in_unless(self, order: Order, flight: Flight[Made] | None) -> None:
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
                self._runtime.retire(order)

"""The order of submissions: which stream does what, and which event it waits for. This is the whole of it.

    upload    | conditions, start of k+1 |u|  noise of k+1 |n|            pictures of k |p|
    aside     |                            u> conditioner k+1 |c|                         p> critic k |j|
    compute   | steps of k ..............| f|                 c, n> steps of k+1 ...
    download  |                             f> state of k |d|                                   j> maps of k |s|
    host      |                                            d> pictures of k                             s> pairs of k

``|e|`` records the event e, ``e>`` waits for it. Two batches are under way at most, in slots 0 and 1. The host fills a
slot only after it has seen the end of the batch that was in it (``d`` and ``s``), which all else of that batch came
before: so what a slot owns needs no other event against being written too early. Two things are shared by both slots
and have events of their own: sets of noise on the device, where there are fewer than two batches need (``n``: written,
and ``r``: read), and pinned rows in which the host makes it (``copied``).

A last state that is handed out on the device is the reader's until it is released: the last segment of the batch that
is next in its slot waits for ``freed``, which is recorded on the reader's stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from msdm_engine.devices.contract import Device, Event
from msdm_engine.devices.lease import Lease
from msdm_engine.pipeline.inventory import SLOTS
from msdm_engine.pipeline.lane import Lane, Streams

WriteNoise = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class SlotEvents:
    """``u c f d p j s`` of the picture above, and the one that a reader of the last state records."""

    uploaded: Event
    conditioned: Event
    finished: Event
    downloaded: Event
    shown: Event
    judged: Event
    seen: Event
    freed: Event


class Order:
    """Submits the batches of one lane. Methods return at once, but where they say that the host waits."""

    def __init__(self, device: Device, streams: Streams, lane: Lane) -> None:
        def events(name: str, count: int) -> list[Event]:
            return [device.event(f"{name}[{i}]") for i in range(count)]

        names = SlotEvents.__dataclass_fields__
        self._device, self._streams, self.lane = device, streams, lane
        self._leases: dict[int, Lease] = {}
        self._of = [SlotEvents(**{name: device.event(f"{name}[{slot}]") for name in names}) for slot in SLOTS]
        self._noise, self._wraps = lane.needs.noise, lane.needs.noise.wraps
        self._written, self._read = events("noise written", self._noise.sets), events("noise read", self._noise.sets)
        self._pinned = [lane.buffers[name] for name in lane.buffers if name.startswith("pinned[")]
        self._copied, self._turn = events("noise copied", len(self._pinned)), 0

    def begin(self, slot: int) -> None:
        """Conditions and initial state, which the host has written, go up; the conditioner runs."""
        upload, aside, compute = self._streams.upload, self._streams.aside, self._streams.compute
        own, done = self.lane.slots[slot], self._of[slot]
        for staged in own.given.values():
            upload.copy(staged.device, staged.host)
        upload.record(done.uploaded)
        aside.wait(done.uploaded)
        aside.submit(own.condition)
        aside.record(done.conditioned)
        compute.wait(done.conditioned)

    def steps(self, slot: int, segment: int, write_noise: WriteNoise) -> None:
        """One segment of the trajectory; the host waits where it is too far ahead with noise.

        Args:
            write_noise: writes the noise of a row (from 0) of the table into an array.
        """
        upload, compute = self._streams.upload, self._streams.compute
        part = self.lane.slots[slot].parts[segment]
        if part.noise:
            if self._wraps:
                upload.wait(self._read[part.noise_set])
            for row, target in part.noise:
                self._upload_noise(row, target, write_noise)
            upload.record(self._written[part.noise_set])
            compute.wait(self._written[part.noise_set])
        if segment == len(self.lane.slots[slot].parts) - 1 and slot in self._leases:
            self._leases.pop(slot).taken_back_by(compute)
        if isinstance(part.steps, tuple):
            for work in part.steps:
                compute.submit(work)
        else:
            compute.replay(part.steps)
        if part.noise and self._wraps:
            compute.record(self._read[part.noise_set])

    def _upload_noise(self, row: int, target: object, write_noise: WriteNoise) -> None:
        pinned, copied = self._pinned[self._turn], self._copied[self._turn]
        self._turn = (self._turn + 1) % len(self._pinned)
        copied.synchronize()
        write_noise(row, pinned.array())
        self._streams.upload.copy(target, pinned)  # type: ignore[arg-type]
        self._streams.upload.record(copied)

    def end(self, slot: int) -> None:
        """The last state goes down."""
        compute, download = self._streams.compute, self._streams.download
        done = self._of[slot]
        compute.record(done.finished)
        download.wait(done.finished)
        final = self.lane.slots[slot].final
        download.copy(final.host, final.device)
        download.record(done.downloaded)

    def wait_for_state(self, slot: int) -> None:
        """The host waits until the last state is there."""
        self._of[slot].downloaded.synchronize()

    def lease(self, slot: int, batch: str) -> Lease:
        """Hands the last state out where it lies; nothing is written there before it is released."""
        done = self._of[slot]
        self._leases[slot] = Lease(batch, self._device, self._streams.compute, done.finished, done.freed)
        return self._leases[slot]

    @property
    def is_held(self) -> bool:
        """Whether somebody still has a last state of this lane."""
        return any(not lease.ended for lease in self._leases.values())

    def end_leases(self, why: str) -> None:
        """What is handed out is gone; the host waits for its readers."""
        for lease in self._leases.values():
            lease.end(why)

    def close(self) -> None:
        """Closes the lane, on which nothing may be under way and of which nobody may hold anything."""
        self.end_leases("its memory is given back")
        self.lane.close()

    def judge(self, slot: int) -> None:
        """Pictures, which the host has written, go up; the critic runs; what it sees goes down."""
        upload, aside, download = self._streams.upload, self._streams.aside, self._streams.download
        own, done = self.lane.slots[slot], self._of[slot]
        assert own.picture is not None and own.judge is not None and own.seen is not None  # a lane with a critic
        upload.copy(own.picture.device, own.picture.host)
        upload.record(done.shown)
        aside.wait(done.shown)
        aside.submit(own.judge)
        aside.record(done.judged)
        download.wait(done.judged)
        download.copy(own.seen.host, own.seen.device)
        download.record(done.seen)

    def wait_for_critic(self, slot: int) -> None:
        """The host waits until what the critic sees is there."""
        self._of[slot].seen.synchronize()

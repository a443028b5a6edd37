"""A setting with its buffers allocated, its graphs bound and its trajectory captured: all that a run replays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from msdm_engine.backends import Backend
from msdm_engine.contract import (
    CONDITIONER,
    CONDITIONER_INPUTS,
    CRITIC,
    CRITIC_INPUTS,
    CRITIC_OUTPUTS,
    DENOISER,
    DENOISER_INPUTS,
    DENOISER_OUTPUTS,
)
from msdm_engine.devices.contract import Buffer, Device, Graph, Stream, Work
from msdm_engine.pipeline.bound import Specs, bind
from msdm_engine.pipeline.inventory import SLOTS, Inventory
from msdm_engine.pipeline.setting import Segment, Setting


@dataclass(frozen=True)
class Streams:
    """The four streams of a pipeline: copies to the device, what surrounds the steps, the steps, copies back.

    ``aside`` may be ``compute`` itself, where two graphs at once would only take turns on the same cores.
    """

    upload: Stream
    aside: Stream
    compute: Stream
    download: Stream

    def all(self) -> tuple[Stream, ...]:
        """Each once."""
        return tuple(dict.fromkeys((self.upload, self.aside, self.compute, self.download)))


@dataclass(frozen=True)
class Staged:
    """A buffer on the device and its like in pinned host memory, which is copied to it or from it."""

    device: Buffer
    host: Buffer


@dataclass(frozen=True)
class Part:
    """What one slot runs for one segment, and where its noise lies: rows of the table and their buffers."""

    noise_set: int
    noise: tuple[tuple[int, Buffer], ...]
    steps: Graph | tuple[Work, ...]


@dataclass(frozen=True)
class Slot:
    """Buffers and work of one of the two batches that are under way.

    Args:
        given: the conditioner's inputs and the initial state, by name.
        final: the last state, which goes back to the host.
    """

    given: dict[str, Staged]
    final: Staged
    condition: Work
    parts: tuple[Part, ...]
    picture: Staged | None
    seen: Staged | None
    judge: Work | None


class Lane:
    """See the module. :meth:`close` gives everything back.

    Args:
        capture: a stream on which nothing else runs, for capturing.
        streams: for what is computed once, when the lane opens.

    Raises:
        DeviceMemoryError: the device has no memory for it.
        MsdmError: a graph cannot be bound to these shapes.
    """

    def __init__(
        self,
        device: Device,
        backend: Backend,
        specs: Specs,
        setting: Setting,
        needs: Inventory,
        streams: Streams,
        capture: Stream,
    ) -> None:
        self.setting, self.needs = setting, needs
        self._device, self._backend, self._specs, self._capture = device, backend, specs, capture
        self.buffers: dict[str, Buffer] = {}
        self._graphs: list[Graph] = []
        #: what is under way does nothing more; for a host that need not wait for steps nobody will look at
        self.dropped = False
        try:
            for name, wanted in needs.wanted.items():
                self.buffers[name] = device.buffer(name, wanted.shape, wanted.dtype, wanted.place)
            self._upload_constants(streams.upload)
            self.slots = tuple(self._slot(slot) for slot in SLOTS)
            if setting.kept:
                self._keep(streams.aside)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Frees graphs and buffers; nothing may be under way."""
        while self._graphs:
            self._graphs.pop().free()
        while self.buffers:
            self.buffers.popitem()[1].free()

    def _upload_constants(self, upload: Stream) -> None:
        """Rows of the table and weights of the branches."""
        weights = [[weight] * self.setting.batch for _, weight in self.setting.branches]
        constants = {f"row[{i}]": np.array(row, np.float32) for i, row in enumerate(self.setting.rows)}
        constants |= {"weights": np.array(weights, np.float32), "alone": np.ones_like(weights[:1], np.float32)}
        staged = []
        for name, value in constants.items():
            staged.append(self._device.buffer(f"{name} host", value.shape, value.dtype, "host"))
            staged[-1].array()[...] = value
            upload.copy(self.buffers[name], staged[-1])
        upload.synchronize()
        for buffer in staged:
            buffer.free()

    def _keep(self, aside: Stream) -> None:
        """Conditions of the branch without any, which are last in the buffers of both slots and stay there."""
        names = self.needs.context
        ends = {
            **{n: self.buffers[f"no {n}"] for n in CONDITIONER_INPUTS},
            **{n: self.buffers[f"kept {n}"] for n in names},
        }
        aside.submit(self._bind(CONDITIONER, ends, "conditioner of nothing"))
        for name, wanted in names.items():
            size = self.buffers[f"kept {name}"].nbytes
            for slot in SLOTS:
                whole = self.buffers[f"{name}[{slot}]"]
                aside.copy(
                    whole.part(f"{name}[{slot}] last", wanted.shape[1:], whole.nbytes - size),
                    self.buffers[f"kept {name}"],
                )

    def _slot(self, slot: int) -> Slot:
        setting, buffers = self.setting, self.buffers
        given = {
            name: Staged(buffers[f"{name}[{slot}]"], buffers[f"{name}[{slot}] host"])
            for name in (*CONDITIONER_INPUTS, "start")
        }
        final = Staged(buffers[f"final[{slot}]"], buffers["final host"])
        own = len(setting.own_branches)
        context = {
            name: buffers[f"{name}[{slot}]"].part(f"{name}[{slot}] own", (own * setting.batch, *wanted.shape[2:]))
            for name, wanted in self.needs.context.items()
        }
        ends = {**{name: given[name].device for name in CONDITIONER_INPUTS}, **context}
        condition = self._bind(CONDITIONER, ends, f"conditioner of slot {slot}")
        parts = tuple(self._part(slot, segment) for segment in self.needs.segments)
        if CRITIC not in self.needs.ends:
            return Slot(given, final, condition, parts, None, None, None)
        picture, seen = (Staged(buffers[n], buffers[f"{n} host"]) for n in (CRITIC_INPUTS[0], CRITIC_OUTPUTS[0]))
        ends = {CRITIC_INPUTS[0]: picture.device, CRITIC_OUTPUTS[0]: seen.device}
        judge = self._bind(CRITIC, ends, f"critic of slot {slot}")
        return Slot(given, final, condition, parts, picture, seen, judge)

    def _part(self, slot: int, segment: Segment) -> Part:
        """Binds the steps of a segment, and captures them if the backend's work can be captured."""
        noise_set, noise = 0, tuple[tuple[int, Buffer], ...]()
        if segment.noisy:
            noisy = [s for s in self.needs.segments if s.noisy]
            use = slot * len(noisy) + noisy.index(segment)  # of the sets, in the order in which two batches use them
            noise_set = use % self.needs.noise.sets
            noise = tuple((row, self.buffers[f"noise[{noise_set}][{j}]"]) for j, row in enumerate(segment.noisy))
        fresh = dict(noise)
        rows = range(segment.first, segment.last)
        steps = tuple(self._step(slot, row, fresh.get(row, self.buffers["zeros"])) for row in rows)
        if not all(work.capturable for work in steps):
            return Part(noise_set, noise, steps)
        with self._capture.capture(f"steps {segment.first + 1} to {segment.last} of slot {slot}") as graph:
            for work in steps:
                self._capture.submit(work)
        self._graphs.append(graph())
        return Part(noise_set, noise, self._graphs[-1])

    def _step(self, slot: int, row: int, noise: Buffer) -> Work:
        """One row of the table: x' and D of x and the D before (:func:`msdm_engine.sampling.sampler.trajectory`)."""
        setting, buffers = self.setting, self.buffers
        last = row == len(setting.rows) - 1
        x, d_prev = (
            (buffers[f"x[{row % 2}]"], buffers[f"d[{row % 2}]"])
            if row
            else (buffers[f"start[{slot}]"], buffers["zeros"])
        )
        x_next, d = buffers[f"final[{slot}]" if last else f"x[{(row + 1) % 2}]"], buffers[f"d[{(row + 1) % 2}]"]
        branches = setting.branches_of(row)
        weights = buffers["weights" if setting.guided[row] else "alone"]
        context = {
            name: buffers[f"{name}[{slot}]"].part(f"{name}[{slot}] of {branches}", (branches, *wanted.shape[1:]))
            for name, wanted in self.needs.context.items()
        }
        inputs = dict(zip(DENOISER_INPUTS, (x, d_prev, noise, buffers[f"row[{row}]"], weights), strict=True))
        outputs = dict(zip(DENOISER_OUTPUTS, (x_next, d), strict=True))
        return self._bind(DENOISER, {**inputs, **outputs, **context}, f"step {row + 1} of slot {slot}")

    def _bind(self, graph: str, ends: Mapping[str, Buffer], name: str) -> Work:
        work = bind(self._backend, self._specs, graph, self._device, ends, name)

        def run(stream: Stream, do: Callable[[Stream], None] = work.run) -> None:
            if not self.dropped:
                do(stream)

        return replace(work, run=run)

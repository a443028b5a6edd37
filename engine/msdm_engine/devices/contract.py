"""What the pipeline asks of a device: buffers, streams that keep their order, events between them, replayed graphs.

Each device implements this in a module of its own: ``host`` (threads, real work on the CPU), ``cuda`` (an NVIDIA GPU),
``simulated`` (the same pipeline under the strict reading of these rules, with a detector of races). The rules:

- What is submitted to one stream happens in order. Nothing orders two streams, or a stream and the host, but events
  and ``synchronize``.
- Submitting returns at once. A buffer that submitted work reads must not be written, and one that it writes must not
  be touched, until an event recorded after that work was waited for.
- Each piece of work names the buffers that it reads and writes. A real device does not look at them; the simulated one
  proves from them, and from the order of events alone, that nothing races.
- A graph is what one stream was given between the beginning and the end of a capture. Replaying it does that again,
  on the same buffers: it allocates nothing, copies nothing between host and device, waits for nothing. Any stream may
  replay it.
- Work that fails raises where it is submitted, or spoils what it writes. What is made of spoilt memory is spoilt too,
  and the host that touches it (:meth:`Buffer.array`) gets the failure. Other work, events and later writes of the same
  memory are as if nothing had happened: a failure belongs to the batch whose buffers it spoilt, not to its stream.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

#: Where a buffer lies: on the device, or in (pinned) host memory that the device copies to and from.
Place = Literal["device", "host"]


class Buffer(Protocol):
    """Memory of a fixed shape and type; allocated when a pipeline opens, never in a step."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    place: Place
    nbytes: int
    #: address in the memory where it lies
    pointer: int

    def array(self) -> np.ndarray:
        """A view of a buffer in host memory, for the host to read or write; the caller has waited for its users.

        On a device whose memory is the host's, device buffers have one too.

        Called at each touch, and never kept: the simulated device takes each call for a touch.

        Raises:
            DeviceError: the buffer lies on a device that the host cannot see, or is freed.
            MsdmError: what spoilt it.
        """
        ...

    def part(self, name: str, shape: tuple[int, ...], offset_bytes: int = 0) -> Buffer:
        """A buffer of the same type on a piece of this one's memory; freeing it does nothing.

        Work takes parts that begin where the whole does (graphs want aligned addresses); copies take any.
        """
        ...

    def free(self) -> None:
        """Gives the memory back; nothing that uses it may be under way, and no graph may hold it (DeviceError)."""
        ...


@dataclass(frozen=True)
class Work:
    """Something to do on a stream: a graph of the bundle bound to its buffers, or a small kernel.

    Args:
        name: for messages, profiles and the detector of races, as in ``denoiser``.
        reads, writes: every buffer that it touches.
        run: does it. Gets the stream it was submitted to; enqueues on ``stream.handle`` (cuda), or computes (host).
        capturable: whether a capture may record it; what synchronises or allocates inside (ONNX Runtime on a GPU) may
            not be, and submitting it to a stream that captures is an error.
    """

    name: str
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    run: Callable[[Stream], None]
    capturable: bool = True


class Event(Protocol):
    """A point in a stream's order."""

    name: str

    def done(self) -> bool:
        """Whether everything before the last record has happened. An event never recorded is done."""
        ...

    def synchronize(self) -> None:
        """The host waits until :meth:`done`. Raises DeviceError if the device itself is lost."""
        ...


class Graph(Protocol):
    """A captured piece of a stream."""

    name: str

    def free(self) -> None:
        """Gives the graph back; no replay may be under way."""
        ...


@runtime_checkable
class Stream(Protocol):
    """An order of work. All methods return at once, but :meth:`synchronize`."""

    name: str
    #: what the device's own libraries take: a ``cudaStream_t`` as int, 0 where there is none
    handle: int

    def submit(self, work: Work) -> None:
        """Does ``work`` after all that came before on this stream."""
        ...

    def copy(self, target: Buffer, source: Buffer) -> None:
        """Copies all bytes, between places or within one; sizes are equal."""
        ...

    def record(self, event: Event) -> None:
        """Moves ``event`` to this point of the stream."""
        ...

    def wait(self, event: Event) -> None:
        """Later work of this stream waits for the event's last record; never recorded: for nothing."""
        ...

    def synchronize(self) -> None:
        """The host waits for all that was submitted; raises the first failure among it, once."""
        ...

    def capture(self, name: str) -> AbstractContextManager[Callable[[], Graph]]:
        """Records what is submitted inside ``with`` instead of doing it; the function gives the graph afterwards.

        Copies between host and device, events and ``synchronize`` inside a capture are errors (DeviceError), and so is
        a capture of nothing. A capture that fails leaves the stream usable.
        """
        ...

    def replay(self, graph: Graph) -> None:
        """Does what was captured, after all that came before on this stream."""
        ...


class Device(Protocol):
    """Makes streams, events and buffers; used with ``with``, which frees what is left."""

    #: ``host``, ``cuda`` or ``simulated``
    kind: str
    #: whether the host sees the memory of the device: then a piece of work may use ``array()`` of its buffers
    unified: bool
    #: what decides the bits of a result on it: name, capability, driver
    identity: dict[str, str]

    def stream(self, name: str) -> Stream:
        """A stream of its own, that waits for no other."""
        ...

    def event(self, name: str) -> Event:
        """An event that was never recorded."""
        ...

    def buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype, place: Place = "device") -> Buffer:
        """Zeroed memory. Raises DeviceMemoryError, which says how much was asked for and how much is free."""
        ...

    def memory(self) -> tuple[int, int]:
        """Bytes free and in all, for the estimate before anything is allocated."""
        ...

    def close(self) -> None:
        """Waits for what is under way, then frees everything that it made."""
        ...

"""How long memory of the engine belongs to whoever it was handed to, and in which order both use it."""

from __future__ import annotations

from dataclasses import dataclass, field

from msdm_engine.devices.contract import Device, Event, Stream
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.interop import handle_of
from msdm_engine.errors import DeviceError


@dataclass(eq=False)
class Lease:
    """From the handing out to :meth:`release` the engine does not write there; afterwards it may.

    Args:
        batch: what the memory holds, as in ``the batch of pair 4``.
        writer: stream on which it was written.
        ready: recorded there after it was.
        freed: an event that is this lease's own, for :meth:`release`.
    """

    batch: str
    device: Device
    writer: Stream
    ready: Event
    freed: Event
    #: why nobody may use the memory any more; empty: it may be used
    ended: str = ""
    _awaited: bool = field(default=False, repr=False)

    def release(self, stream: object = None) -> None:
        """The reader is done once what ``stream`` was given until now is done; the host waits for nothing.

        A lease that has ended stays as it is.

        Args:
            stream: anything with ``__cuda_stream__``, a raw handle, or a stream of the engine's own device; None: the
                reader is done already. On the host, where other libraries have no streams, theirs are not looked at.
        """
        if self.ended:
            return
        reader = None if stream is None else self._stream_of(stream)
        if reader is not None:
            reader.record(self.freed)
            self._awaited = True
        self.ended = "it was released"

    def end(self, why: str) -> None:
        """Refuses every further use without the reader's word; the host waits for what was released to a stream."""
        self.ended = self.ended or why
        if self._awaited:
            self.freed.synchronize()
            self._awaited = False

    def taken_back_by(self, writer: Stream) -> None:
        """Later work of this stream may write there: it waits for the reader's stream."""
        if self._awaited:
            writer.wait(self.freed)

    def check(self, name: str) -> None:
        """Raises DeviceError after the end."""
        closed = isinstance(self.device, CudaDevice) and self.device.closed
        if self.ended or closed:
            raise DeviceError(
                f"'{name}' of {self.batch} is gone: {self.ended or 'the engine is closed'}",
                note="what the engine hands out on the device is there until it is released",
                hint="release it later, or copy it first, as with torch.from_dlpack(array).clone()",
            )

    def _stream_of(self, stream: object) -> Stream | None:
        if isinstance(self.device, CudaDevice):
            handle, owner = handle_of(stream)
            return self.device.borrow_stream("of the reader", handle, owner)
        return stream if isinstance(stream, Stream) else None

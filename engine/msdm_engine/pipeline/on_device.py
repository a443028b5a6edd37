"""Finished batches that stay on the device, handed out where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from msdm_engine.contract import IMAGE_CHANNELS
from msdm_engine.devices.device_array import DeviceArray
from msdm_engine.devices.lease import Lease
from msdm_engine.errors import DeviceError
from msdm_engine.pairs import PairRequest
from msdm_engine.pipeline.flight import Flight


@dataclass(frozen=True, eq=False)
class DeviceBatch:
    """Pairs of one size on the device: the generator's own last state, neither rounded nor copied.

    Used with ``with``, or released by hand. Released is what the next batch cannot be asked for without.

    Args:
        requests: one for each row of the arrays.
        image: [B, 3, H, W] float32 RGB, about -1 to 1; 8-bit pixels are ``clip(rint((image + 1) * 127.5), 0, 255)``.
        maps: [B, 3, H, W] float32 foreground, horizontal and vertical map, about -1 to 1, and behind them the class
            maps of a bundle that has classes. Where a request follows an instance map, its ``instances`` are the mask.
    """

    requests: tuple[PairRequest, ...]
    image: DeviceArray
    maps: DeviceArray
    lease: Lease

    def release(self, stream: object = None) -> None:
        """The arrays are no longer used once what ``stream`` was given until now is done; the host waits for nothing.

        Args:
            stream: of the reader: anything with ``__cuda_stream__``, or a raw handle (``stream.handle`` of PyCUDA,
                ``.ptr`` of CuPy, ``.cuda_stream`` of PyTorch); None: nobody reads any more.
        """
        self.lease.release(stream)

    def __enter__(self) -> DeviceBatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class OnDevice:
    """Batches on the device. Fulfils :class:`~msdm_engine.pipeline.flight.HandOver`; the critic is not asked."""

    asks_critic = False

    def finish(self, flight: Flight[DeviceBatch]) -> None:
        """See the contract."""
        setting, requests = flight.order.lane.setting, flight.batch.requests
        state = flight.order.lane.slots[flight.slot].final.device
        lease = flight.order.lease(flight.slot, f"the batch of pair {requests[0].index}")
        pixels = slice(len(requests)), slice(setting.height_px), slice(setting.width_px)

        def window(name: str, channels: slice) -> DeviceArray:
            return DeviceArray(name, state, lease, (pixels[0], channels, *pixels[1:]))

        n = len(IMAGE_CHANNELS)
        flight.made = [DeviceBatch(requests, window("image", slice(n)), window("maps", slice(n, None)), lease)]

    def judge(self, flight: Flight[DeviceBatch]) -> None:
        """The critic is not asked."""

    def taken(self, flight: Flight[DeviceBatch]) -> None:
        """Raises DeviceError unless the batch was released: the one after the next is written where it lies."""
        (batch,) = flight.made
        if not batch.lease.ended:
            raise DeviceError(
                f"{batch.lease.batch} is still held, and another one is asked for",
                note="two batches have memory on the device: the one that is held, and the one that is computed",
                hint="batch.release(stream) with the stream that reads it, batch.release() if nobody does any more; or "
                "`with batch:`",
            )

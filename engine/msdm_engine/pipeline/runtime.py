"""What an engine keeps between its runs: the device's streams, lanes that are open, and how much fits."""

from __future__ import annotations

from collections import OrderedDict
from threading import RLock
from weakref import WeakSet

from msdm_engine.backends import Backend
from msdm_engine.bundle.reader import Bundle
from msdm_engine.devices.contract import Device, Stream
from msdm_engine.devices.host import HostStream
from msdm_engine.pipeline.batches import Size
from msdm_engine.pipeline.bound import specs_of
from msdm_engine.pipeline.inventory import Inventory, inventory
from msdm_engine.pipeline.lane import Lane, Streams
from msdm_engine.pipeline.memory import DoesNotFit, check_fits
from msdm_engine.pipeline.order import Order
from msdm_engine.pipeline.setting import Setting
from msdm_engine.stage_clock import StageClocks, StageTimes

#: Lanes that nobody runs stay open for the next run, so many at most; the one used last stays longest.
MAX_IDLE_LANES = 3
#: On a device whose memory is the host's, noise is made just ahead of its step: one row a segment, four ahead.
#: On any other a segment is as long as can be, because a captured one must find all its noise there, and both slots
#: have sets of their own.
ROWS_BESIDE_HOST, SETS_BESIDE_HOST = 1, 4


class Runtime:
    """Streams of a device and lanes on it.

    Args:
        concurrent: whether conditioner and critic have a stream of their own beside the steps; None: where the device
            is none of the host's cores, for which they would only compete with the steps.
        owns_device: whether it is closed here, and not by the backend.
    """

    def __init__(
        self,
        device: Device,
        bundle: Bundle,
        backend: Backend,
        *,
        concurrent: bool | None = None,
        owns_device: bool = True,
    ) -> None:
        self.device, self.backend, self._bundle, self._owns_device = device, backend, bundle, owns_device
        self._concurrent = not device.unified if concurrent is None else concurrent
        self._streams: Streams | None = None
        self._capture: Stream | None = None
        self._idle: OrderedDict[Setting, list[Order]] = OrderedDict()
        #: nobody may run them any more; they wait for who holds a result of theirs
        self._retired: list[Order] = []
        self._all: WeakSet[Order] = WeakSet()
        #: pairs in a batch at most, by size, where memory ended midway
        self.limits: dict[Size, int] = {}
        # Runs of two iterators may be on it from two threads (batches side by side).
        self._lock = RLock()
        #: ``prepare`` (conditions and noise) and ``hand over`` (pictures and masks), both on the caller's thread
        self.clocks = StageClocks()
        #: for measurements and tests: how often a lane was opened
        self.opened = 0

    @property
    def streams(self) -> Streams:
        """Made when first used: an engine that only opens and closes starts nothing."""
        if self._streams is None:
            upload, compute, download = (self.device.stream(name) for name in ("upload", "compute", "download"))
            aside = self.device.stream("aside") if self._concurrent else compute
            self._streams, self._capture = Streams(upload, aside, compute, download), self.device.stream("capture")
        return self._streams

    def times(self) -> dict[str, StageTimes]:
        """Where the time went so far: the caller's stages, and the streams where the device counts for them."""
        streams = self._streams.all() if self._streams is not None else ()
        clocks = {stream.name: stream.clock for stream in streams if isinstance(stream, HostStream)}
        return self.clocks.times() | {name: clock.times() for name, clock in clocks.items()}

    def plan(self, setting: Setting) -> Inventory:
        """What a setting needs on this device."""
        manifest, unified = self._bundle.manifest, self.device.unified
        return inventory(
            setting,
            specs_of(self._bundle, self.backend),
            manifest.stride,
            manifest.critic["stride"] if manifest.critic else 1,
            longest=ROWS_BESIDE_HOST if unified else len(setting.rows),
            sets=SETS_BESIDE_HOST if unified else 2 * len(setting.rows),
        )

    def check_out(self, setting: Setting) -> Order:
        """A lane of this setting for one run alone: an idle one, else it is opened.

        Raises:
            DeviceMemoryError: see :func:`check_fits`; or memory ended though it should have been enough.
            MsdmError: a graph cannot be bound.
        """
        with self._lock:
            return self._check_out(setting)

    def _check_out(self, setting: Setting) -> Order:
        self._close_retired()
        for order in reversed(self._idle.get(setting, [])):
            if not order.is_held:
                self._idle[setting].remove(order)
                order.lane.dropped = False
                return order
        streams = self.streams
        assert self._capture is not None  # as the streams
        specs = specs_of(self._bundle, self.backend)
        self._close_idle(MAX_IDLE_LANES)
        try:
            needs = check_fits(setting, self.plan, self.backend, self.device)
        except DoesNotFit:
            if not self._close_idle(0):
                raise
            needs = check_fits(setting, self.plan, self.backend, self.device)
        self.opened += 1
        lane = Lane(self.device, self.backend, specs, setting, needs, streams, self._capture)
        order = Order(self.device, streams, lane)
        self._all.add(order)
        return order

    def check_in(self, order: Order) -> None:
        """Takes a lane back, on which nothing is under way."""
        with self._lock:
            self._idle.setdefault(order.lane.setting, []).append(order)
            self._idle.move_to_end(order.lane.setting)

    def retire(self, order: Order) -> None:
        """Closes a lane on which nothing is under way, as soon as nobody holds a result of it."""
        with self._lock:
            self._retired.append(order)
            self._close_retired()

    def _close_retired(self) -> None:
        for order in [order for order in self._retired if not order.is_held]:
            self._retired.remove(order)
            order.close()

    def _close_idle(self, keep: int) -> int:
        """Closes idle lanes but the ``keep`` used last, unless a result of theirs is held; returns how many."""
        idle = [order for orders in self._idle.values() for order in orders if not order.is_held]
        closed = idle[: max(0, len(idle) - keep)]
        for order in closed:
            self._idle[order.lane.setting].remove(order)
            order.close()
        for setting in [setting for setting, orders in self._idle.items() if not orders]:
            del self._idle[setting]
        return len(closed)

    def close(self) -> None:
        """Closes lanes, and the device if it is ours; what is handed out on the device is gone then."""
        for order in self._all:
            order.end_leases("the engine is closed")
        if self._owns_device and self.device.unified:
            self.device.close()  # what has not begun is dropped; buffers go with it
            return
        for stream in self.streams.all() if self._streams is not None else ():
            stream.synchronize()
        self._close_retired()
        self._close_idle(0)
        if self._owns_device:
            self.device.close()

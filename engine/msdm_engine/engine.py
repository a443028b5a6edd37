"""The engine: a verified bundle, a backend, and pairs on demand.

>>> from msdm_engine import Engine, PairRequest
>>> with Engine.open() as engine:
...     pair = next(engine.sample([PairRequest(index=0, seed=1, height_px=128, width_px=128)]))
>>> pair.image.shape
(128, 128, 3)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType

from msdm_engine.backends import Backend, open_backend, runs_on_cpu
from msdm_engine.bundle.manifest import Sampling
from msdm_engine.bundle.reader import Bundle
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.contract import FLOAT32
from msdm_engine.devices.contract import Device
from msdm_engine.devices.host import HostDevice
from msdm_engine.errors import RequestError
from msdm_engine.pairs import Pair, PairRequest
from msdm_engine.pipeline.batches import Batches, Placed, in_order
from msdm_engine.pipeline.conditions import Conditions
from msdm_engine.pipeline.handover import AsPairs
from msdm_engine.pipeline.on_device import DeviceBatch, OnDevice
from msdm_engine.pipeline.parallel import share_cores, side_by_side
from msdm_engine.pipeline.run import Run
from msdm_engine.pipeline.runtime import Runtime
from msdm_engine.sampling.guidance import Guidance
from msdm_engine.stage_clock import StageTimes


class Engine:
    """Generates pairs; open with :meth:`open`, close with ``with``."""

    def __init__(self, bundle: Bundle, backend: Backend, device: Device | None = None, *, parallel: int = 1) -> None:
        """See :meth:`open`.

        Args:
            device: on whose memory the backend works, which the engine closes; None: the backend's own, else the host.
            parallel: batches side by side; more than one only on the host.
        """
        self.bundle, self.backend = bundle, backend
        self.tokenizer = TextTokenizer(bundle.tokenizer, bundle.manifest.text_tokens)
        theirs: Device | None = getattr(backend, "device", None) if device is None else None
        self._runtime = Runtime(theirs or device or HostDevice(), bundle, backend, owns_device=theirs is None)
        if parallel > 1 and self._runtime.device.kind != "host":
            raise RequestError(
                f"{parallel} batches side by side on a device of kind '{self._runtime.device.kind}'",
                note="a GPU runs one after another, and overlaps what surrounds their steps",
                hint="leave it out",
            )
        self._beside = [Runtime(HostDevice(), bundle, backend) for _ in range(parallel - 1)]
        self._conditions = Conditions(bundle, backend, self.tokenizer)

    @staticmethod
    def open(
        bundle: Path | str | Bundle | None = None,
        *,
        backend: str = "onnxruntime",
        threads: int = 0,
        parallel: int = 0,
        precision: str = FLOAT32,
        watch: Callable[[Backend], Backend] | None = None,
    ) -> Engine:
        """Opens a bundle on a backend.

        Args:
            bundle: folder of the bundle or an opened one; None is the reference bundle that ships with msdm.
            backend: see :data:`msdm_engine.backends.BACKENDS`.
            threads: CPU threads of a batch; 0: one, or what the cores have for each of ``parallel``. Pixels are
                bit-equal for equal threads only.
            parallel: batches side by side on the CPU; 0: as many as the cores have room for. Pixels are the same.
            precision: of the graphs: ``float32``, or what `msdm-export precision` added to the bundle.
            watch: puts something between engine and backend that sees each run, at the cost of copies.

        Raises:
            BundleError, BackendError, RequestError.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        on_cpu = runs_on_cpu(backend)
        threads, parallel = share_cores(threads, parallel) if on_cpu else (threads, 1)
        made = open_backend(backend, opened, threads=threads, parallel=parallel, precision=precision)
        return Engine(opened, watch(made) if watch else made, parallel=parallel)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the device's threads after what they are doing, and releases memory and backend."""
        for runtime in (*self._beside, self._runtime):
            runtime.close()
        self.backend.close()

    def times(self) -> dict[str, StageTimes]:
        """Where the time of all runs so far went, by stage, summed over batches side by side: see docs/runtime.md."""
        total: dict[str, StageTimes] = {}
        for runtime in (self._runtime, *self._beside):
            for name, times in runtime.times().items():
                total[name] = total.get(name, StageTimes()) + times
        return total

    def sample(
        self,
        requests: Iterable[PairRequest],
        sampling: Sampling | None = None,
        guidance: Guidance | None = None,
        *,
        critic: bool = True,
    ) -> Iterator[Pair]:
        """Generates one pair for each request, in their order.

        Requests of one size share a batch; a short batch is filled up to ``sampling.batch`` with copies of its last
        request, because the batch shape decides the last bits of a pixel. Two batches are under way at most
        (:mod:`msdm_engine.pipeline`): when the first pair of one comes, requests were taken to the end of the next;
        batches side by side have as many each (:mod:`msdm_engine.pipeline.parallel`). Where sizes alternate, requests
        are taken up to eight batches further ahead (:mod:`msdm_engine.pipeline.batches`). Several of these iterators
        may be open at once, and used in turns.

        Args:
            sampling: solver, steps and batch; None: the bundle's own. Change it with
                ``engine.bundle.manifest.sampling.changed(steps=12)``.
            guidance: strengths and noise interval; None: the bundle's own.
            critic: show each finished batch to the bundle's critic, if it has one, for ``Pair.agreement``. It runs
                once a batch; images and masks are the same without it.

        Raises:
            RequestError: a text that is too long.
            DeviceMemoryError: the batch does not fit the memory; says which does. Where memory ends later than that,
                the batch is halved instead, and the pairs say so.
            NumericsError: a graph returned a value that is not finite.
            BackendError: a graph failed, or returned something else than the contract says.
        """
        manifest = self.bundle.manifest
        sampling = sampling or manifest.sampling
        stride = manifest.critic["stride"] if critic and manifest.critic is not None else None
        guidance = manifest.guidance if guidance is None else guidance

        def run_on(runtime: Runtime, requests: Iterable[PairRequest], *, member: bool) -> Generator[Placed]:
            run = Run(runtime, self._conditions, sampling, guidance, AsPairs(sampling.batch, stride))
            return run.all(Batches(requests, sampling.batch, runtime.limits, neighbours=member))

        if not self._beside:
            yield from in_order(run_on(self._runtime, requests, member=False))
            return
        samples = [partial(run_on, runtime, member=True) for runtime in (self._runtime, *self._beside)]
        yield from in_order(side_by_side(samples, Batches(requests, sampling.batch, {})))

    def sample_on_device(
        self,
        requests: Iterable[PairRequest],
        sampling: Sampling | None = None,
        guidance: Guidance | None = None,
    ) -> Iterator[DeviceBatch]:
        """Generates as :meth:`sample`, and hands each batch out where it lies: on the GPU, or in the host's memory.

        A batch is released before the next one is asked for, and the engine writes there no earlier than the reader's
        stream is done; the last one may be kept until the engine is closed. Where sizes alternate, batches are not in
        the order of the requests: each names its own. The critic is not asked.

        Args:
            requests, sampling, guidance: as for :meth:`sample`.

        Raises:
            RequestError: batches run side by side, or what :meth:`sample` raises.
            DeviceError: a batch is asked for while the one before is held; an array is used after its release.
        """
        if self._beside:
            raise RequestError(
                f"results on the device from {len(self._beside) + 1} batches side by side",
                note="batches side by side run ahead of their reader, who would have to release them out of order",
                hint="Engine.open(..., parallel=1)",
            )
        manifest = self.bundle.manifest
        sampling, guidance = sampling or manifest.sampling, manifest.guidance if guidance is None else guidance
        run = Run(self._runtime, self._conditions, sampling, guidance, OnDevice())
        return run.all(Batches(requests, sampling.batch, self._runtime.limits))

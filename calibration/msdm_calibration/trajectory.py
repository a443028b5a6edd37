"""Real trajectories: the engine itself samples, and every run of a graph is shown to an observer.

The engine takes any backend. One that shows what it runs gives the noise, the table, the guidance and the padding of
production without a second copy of them; and a graph with more outputs (:mod:`msdm_calibration.marked`) is run in
place of the bundle's, so that activations cost no second run of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdm_engine.backends import Backend
from msdm_engine.bundle.manifest import Sampling
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import CONDITIONER, DENOISER, FLOAT32, ROW
from msdm_engine.engine import Engine
from msdm_engine.errors import BackendError
from msdm_engine.pairs import Pair, PairRequest
from msdm_engine.sampling.guidance import Guidance

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Visit:
    """One run of one graph.

    Args:
        step: number of the table's row, from 0; None for a graph that does not run at every step.
        sigma: noise level of that row.
        inputs, outputs: as the manifest lists them.
        more: what else the graph gave out: its marked activations.
    """

    graph: str
    step: int | None
    sigma: float | None
    inputs: Arrays
    outputs: Arrays
    more: Arrays


See = Callable[[Visit], None]


class Sessions:
    """A backend over models in memory, marked ones among them: it gives out everything that a graph does.

    Args:
        models: serialised ONNX by the graph's name.
        threads: CPU threads of a graph; values are bit-equal for equal threads only.
        precision: under which the bundle lists these graphs; it decides the types that they hand to one another.

    Raises:
        BackendError: ONNX Runtime is missing, or cannot load a graph.
    """

    def __init__(self, models: Mapping[str, bytes], *, threads: int = 1, precision: str = FLOAT32) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(
                "calibration runs graphs with ONNX Runtime, and none is installed", hint="pip install 'msdm[cpu]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.identity = {
            "backend": "onnxruntime",
            "version": onnxruntime.__version__,
            "threads": str(threads),
            "precision": precision,
        }
        self._sessions: dict[str, Any] = {}
        for name, data in models.items():
            try:
                self._sessions[name] = onnxruntime.InferenceSession(
                    data, options, providers=["CPUExecutionProvider"], enable_fallback=0
                )
            except Exception as error:  # ONNX Runtime raises its own classes, derived from Exception only
                raise BackendError(f"ONNX Runtime cannot load the graph '{name}': {error}") from error

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """Runs one graph: all its outputs by name."""
        session = self._sessions[graph]
        names = [output.name for output in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:  # as above
            raise BackendError(f"ONNX Runtime failed in the graph '{graph}': {error}") from error

    def close(self) -> None:
        """Drops the sessions."""
        self._sessions.clear()


class Observed:
    """A backend that shows each run of another one, and hands on what the bundle's manifest lists."""

    def __init__(self, bundle: Bundle, backend: Backend, see: See) -> None:
        self.identity = backend.identity
        self._listed = {name: [t.name for t in spec.outputs] for name, spec in bundle.manifest.graphs.items()}
        self._backend, self._see, self._step = backend, see, 0

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """Runs one graph, shows the visit, and returns the outputs of the manifest."""
        given = self._backend.run(graph, inputs)
        outputs = {name: given.pop(name) for name in self._listed[graph]}
        if graph == CONDITIONER:  # a trajectory begins
            self._step = 0
        step, sigma = (self._step, float(inputs[ROW][0])) if graph == DENOISER else (None, None)
        self._see(Visit(graph, step, sigma, inputs, outputs, given))
        self._step += graph == DENOISER
        return outputs

    def close(self) -> None:
        """Leaves the backend open: it belongs to the caller."""


def follow(
    bundle: Bundle,
    backend: Backend,
    requests: Sequence[PairRequest],
    see: See,
    sampling: Sampling | None = None,
    guidance: Guidance | None = None,
    *,
    critic: bool = True,
) -> list[Pair]:
    """Samples one batch, and shows every run of a graph in its order.

    Nothing is kept from a batch before, texts neither: what is seen depends on the batch alone.

    Args:
        backend: for instance :class:`Sessions`; it may give out more than the manifest lists.
        requests: of one size; all run as one batch, whatever the batch of ``sampling``.
        see: called after each run; the arrays are the caller's to read until the next one.
        sampling, guidance: None: the bundle's own.
        critic: show the finished pictures to the bundle's critic, if it has one.

    Raises:
        MsdmError: of the engine; a value that is not finite among them.
    """
    sampling = (sampling or bundle.manifest.sampling).changed(batch=len(requests))
    engine = Engine(bundle, Observed(bundle, backend, see))
    return list(engine.sample(requests, sampling, guidance, critic=critic))


def batches(requests: Sequence[PairRequest], size: int) -> Iterator[Sequence[PairRequest]]:
    """Consecutive requests, ``size`` at a time; the last batch may be shorter."""
    for first in range(0, len(requests), size):
        yield requests[first : first + size]

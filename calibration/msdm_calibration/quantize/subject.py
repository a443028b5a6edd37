"""What is quantised and on what: the bundle's denoiser, its targets, and the conditions of its trajectories.

Only the denoiser: it runs at every step and does nearly all matrix work of a picture (99 % on the reference bundle, 20
steps); the other graphs run once, and join a quantised set in the precision of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from msdm_calibration.marked import with_outputs
from msdm_calibration.quantize.targets import MATRIX, Target, Targets, flops_of, plain_graph, targets_of
from msdm_calibration.trajectory import Arrays, See, Sessions, Visit, follow
from msdm_engine.backends import Backend
from msdm_engine.bundle.manifest import Sampling
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER, DENOISER_OUTPUTS
from msdm_engine.errors import BundleError
from msdm_engine.pairs import PairRequest

FINAL = DENOISER_OUTPUTS[0]


@dataclass(frozen=True)
class Subject:
    """A bundle that is being quantised.

    Args:
        requests: whose trajectories it is calibrated on.
        sampling: solver and steps of the trajectories.
        batch: requests that run at once.
        threads: CPU threads; values are bit-equal for equal threads only.
    """

    bundle: Bundle
    requests: tuple[PairRequest, ...]
    sampling: Sampling
    batch: int = 2
    threads: int = 1

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The float32 denoiser, its weights unpacked."""
        return plain_graph(self.bundle.graphs[DENOISER])

    @cached_property
    def targets(self) -> Targets:
        """What may be quantised, and what is kept.

        Raises:
            BundleError: nothing may.
        """
        targets = targets_of(self.model, self.flops)
        if not targets.found:
            raise BundleError(
                f"the denoiser of {self.bundle.manifest.name} has no matrix work that may be quantised",
                note="first and last convolution, what the row alone decides and products of activations are kept",
                hint="nothing is gained below FP16 here",
            )
        return targets

    @cached_property
    def by_node(self) -> dict[str, Target]:
        """Targets by their node."""
        return {target.node: target for target in self.targets.found}

    def sessions(self, denoiser: bytes | None = None) -> Sessions:
        """The bundle's float32 graphs, or with another denoiser in place of its own."""
        graphs = self.bundle.graphs | ({DENOISER: denoiser} if denoiser is not None else {})
        return Sessions(graphs, threads=self.threads)

    def marked(self, tensors: Sequence[str]) -> Sessions:
        """The float32 graphs with these tensors of the denoiser among its outputs."""
        return self.sessions(with_outputs(self.model, tensors).SerializeToString())

    def follow(self, backend: Backend, requests: Sequence[PairRequest], see: See) -> np.ndarray:
        """One batch; returns the final state: [B, C, H, W] float32."""
        final: list[Arrays] = []

        def also(visit: Visit) -> None:
            if visit.graph == DENOISER:
                final[:] = [visit.outputs]
            see(visit)

        follow(self.bundle, backend, requests, also, self.sampling, critic=False)
        return final[0][FINAL]

    def finals(self, backend: Backend, requests: Sequence[PairRequest]) -> np.ndarray:
        """Final states of requests, in batches."""
        starts = range(0, len(requests), self.batch)
        return np.concatenate([self.follow(backend, requests[i : i + self.batch], _ignore) for i in starts])

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the first input and the output of each matrix node, in a step of one request."""
        work = [node for node in self.model.graph.node if node.op_type in MATRIX]
        made = {name for node in self.model.graph.node for name in node.output}
        names = {name for node in work for name in (node.input[0], node.output[0]) if name in made}
        shapes: dict[str, tuple[int, ...]] = {}

        def see(visit: Visit) -> None:
            if visit.graph == DENOISER:
                shapes.update({n: v.shape for n, v in (visit.inputs | visit.outputs | visit.more).items()})

        once = self.sampling.changed(steps=1)
        follow(self.bundle, self.marked(sorted(names)), self.requests[:1], see, once, critic=False)
        return shapes

    @cached_property
    def flops(self) -> dict[str, int]:
        """Operations of each matrix node of one step, of one request."""
        return flops_of(self.model, self.shapes)

    @property
    def sigmas(self) -> np.ndarray:
        """[N] noise levels of the steps, descending."""
        return np.asarray(self.sampling.table()[:, 0])


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    """L2 norm of the difference over that of what is expected."""
    expected = expected.astype(np.float64)
    norm = float(np.linalg.norm(expected.ravel()))
    return float(np.linalg.norm((found - expected).ravel())) / max(norm, 1e-300)


def _ignore(_: Visit) -> None:
    pass

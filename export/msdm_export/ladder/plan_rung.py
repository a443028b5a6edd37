"""The ladder's last rung: the plans of this machine's GPU, run by the engine's own TensorRT backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np

from msdm_engine.backends import Backend, open_backend
from msdm_engine.bundle.manifest import GraphSpec, Variant
from msdm_engine.bundle.plan_spec import PLAN_BACKENDS, PlanSpec
from msdm_engine.bundle.plans import build_command, is_stale
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER, TEXT_ENCODER
from msdm_engine.doctor.probe import probe_gpus
from msdm_engine.errors import BackendError
from msdm_export.conditions import WEIGHTS, Arrays, Run, Size
from msdm_export.ladder.errors import Tolerance
from msdm_export.ladder.rungs import Rung
from msdm_export.plans.targets import backend_of

NAME = "plan"
#: Shapes of one rung: PyTorch's reference runs on the CPU, and every plan beyond these is of the same network.
MAX_SIZES = 4


@contextmanager
def plan_rungs(bundle: Bundle, tolerances: Mapping[str, Tolerance]) -> Iterator[list[Rung]]:
    """One rung for each backend and precision that the bundle has plans in for this GPU; open while in ``with``.

    Without a GPU, plans for it, or TensorRT there is one rung that says which of them is missing.

    Args:
        tolerances: of each precision: a plan runs the typed graph, and is held to what that is held to.
    """
    probe = probe_gpus()
    if not probe.gpus:
        yield [Rung(NAME, "TensorRT plans", not_run=f"not run: no GPU ({probe.problem})")]
        return
    target = probe.gpus[0].target
    found: dict[tuple[str, str], list[PlanSpec]] = {}
    for plan in bundle.manifest.plans.values():
        fits = plan.graph == DENOISER and plan.target == target and plan.precision in tolerances
        if fits and not is_stale(bundle, plan):
            found.setdefault((plan.backend, plan.precision), []).append(plan)
    if not found:
        precision = next((name for name in ("fp16", "bf16") if name in tolerances), "float32")
        make = build_command(bundle, backend_of(target), target, precision)
        yield [Rung(NAME, "TensorRT plans", not_run=f"not run: the bundle has no plan for {target}; {make}")]
        return
    with ExitStack() as opened:
        yield [_rung(bundle, *key, plans, tolerances[key[1]], opened) for key, plans in found.items()]


def _rung(
    bundle: Bundle, backend: str, precision: str, plans: list[PlanSpec], tolerance: Tolerance, opened: ExitStack
) -> Rung:
    name, what = f"{NAME} {precision} {backend}", f"plans of {PLAN_BACKENDS[backend]} {plans[0].version} on the GPU"
    try:
        runs = open_backend(backend, bundle, precision=precision)
    except BackendError as error:
        return Rung(name, what, not_run=f"not run: {error.what}; {error.hint}")
    opened.callback(runs.close)
    sizes = sizes_of(plans, bundle.manifest.stride)
    return Rung(name, what, _run_of(runs, bundle.in_precision(precision)), tolerance, sizes=sizes)


def sizes_of(plans: list[PlanSpec], stride: int) -> tuple[Size, ...]:
    """The smallest shapes that the denoiser's plans are best at, in pixels; at most :data:`MAX_SIZES`."""
    found = set()
    for plan in plans:
        best = {name: value for name, (_, value, _) in plan.profile.items()}
        if best["branches"] in WEIGHTS:
            found.add((best["rows"] * stride, best["columns"] * stride, best["batch"], best["branches"]))
    return tuple(Size(*size) for size in sorted(found, key=lambda size: (np.prod(size), size))[:MAX_SIZES])


def _run_of(backend: Backend, graphs: Mapping[str, GraphSpec | Variant]) -> Run:
    """The ladder gives the reference's inputs: in float32, and all texts of a case, where a plan runs one at a time."""

    def run(graph: str, given: Arrays) -> Arrays:
        inputs = {tensor.name: given[tensor.name].astype(tensor.dtype, copy=False) for tensor in graphs[graph].inputs}
        if graph != TEXT_ENCODER:
            return backend.run(graph, inputs)
        texts = len(next(iter(inputs.values())))
        each = [backend.run(graph, {name: value[i : i + 1] for name, value in inputs.items()}) for i in range(texts)]
        return {name: np.concatenate([outputs[name] for outputs in each]) for name in each[0]}

    return run

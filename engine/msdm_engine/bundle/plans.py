"""Which plan of a bundle runs a graph on a GPU; a plan that does not fit is refused, with the command that builds one.

A plan that merely exists is never run: backend, compute capability, TensorRT version, graph and shape must all be
those of the machine and of the bundle, and its bytes those of the manifest (:meth:`msdm_engine.Bundle.plan_bytes`).
"""

from __future__ import annotations

from collections.abc import Callable

from msdm_engine.bundle.plan_spec import PLAN_BACKENDS, PlanSpec
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import FLOAT32
from msdm_engine.errors import BackendError

Candidates = dict[str, PlanSpec]


def find_plan(
    bundle: Bundle, graph: str, *, backend: str, version: str, target: str, precision: str, dimensions: dict[str, int]
) -> str:
    """Name of the plan that runs ``graph`` here; a static plan is preferred: its CUDA graph is captured once.

    Args:
        backend: ``tensorrt`` or ``tensorrt-rtx``.
        version: of the TensorRT that will load it, exactly.
        target: compute capability of the GPU, as in ``sm_89``.
        precision: as in ``fp16``.
        dimensions: value of each dynamic dimension of the graph's inputs, by the manifest's name.

    Raises:
        BundleError: the bundle does not have its graphs in this precision.
        BackendError: there is none; says which condition the nearest plans fail.
    """
    shape = ", ".join(f"{name} {value}" for name, value in dimensions.items())
    manifest = bundle.manifest
    source = manifest.files[manifest.graphs[graph].file].sha256
    compiled = manifest.files[bundle.in_precision(precision)[graph].file].sha256
    conditions: tuple[tuple[str, Callable[[PlanSpec], bool], Callable[[PlanSpec], str]], ...] = (
        (f"the graph '{graph}'", lambda plan: plan.graph == graph, lambda plan: plan.graph),
        (PLAN_BACKENDS[backend], lambda plan: plan.backend == backend, lambda plan: plan.backend),
        (f"the compute capability {target}", lambda plan: plan.target == target, lambda plan: plan.target),
        (f"the precision {precision}", lambda plan: plan.precision == precision, lambda plan: plan.precision),
        (
            f"the graph as it is now ({compiled[:12]})",
            lambda plan: (plan.graph_sha256, plan.compiled_sha256) == (source, compiled),
            lambda plan: f"a graph {plan.compiled_sha256[:12]}",
        ),
        (f"version {version}", lambda plan: plan.version == version, lambda plan: f"version {plan.version}"),
        (shape or "the shape", lambda plan: plan.fits(dimensions), _shape_of),
    )
    plans: Candidates = bundle.manifest.plans
    for wanted, fits, shown in conditions:
        fitting = {name: plan for name, plan in plans.items() if fits(plan)}
        if not fitting:
            there = sorted({shown(plan) for plan in plans.values()})
            raise BackendError(
                f"no plan of '{graph}' in {bundle.folder} is for {wanted}",
                note=f"there are plans for {', '.join(there)}" if there else "the bundle has no plans",
                hint=build_command(bundle, backend, target, precision),
            )
        plans = fitting
    return min(plans, key=lambda name: (not plans[name].static, name))


def is_stale(bundle: Bundle, plan: PlanSpec) -> bool:
    """Whether the bundle no longer holds the graph that was compiled."""
    spec = bundle.manifest.graphs[plan.graph]
    compiled = spec if plan.precision == FLOAT32 else spec.variants.get(plan.precision)
    found = compiled and (bundle.manifest.files[spec.file].sha256, bundle.manifest.files[compiled.file].sha256)
    return found != (plan.graph_sha256, plan.compiled_sha256)


def build_command(bundle: Bundle, backend: str, target: str, precision: str) -> str:
    """The command that builds plans of the bundle's own size and batch."""
    sampling = bundle.manifest.sampling
    return (
        f"msdm-export build {bundle.folder} --backend {backend} --target {target} --precision {precision} "
        f"--profile {sampling.size_px}:{sampling.batch}"
    )


def _shape_of(plan: PlanSpec) -> str:
    def shown(low: int, high: int) -> str:
        return str(low) if low == high else f"{low} to {high}"

    return " x ".join(f"{name} {shown(low, high)}" for name, (low, _, high) in plan.profile.items())

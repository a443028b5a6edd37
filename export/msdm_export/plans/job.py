"""A build: every graph of a bundle x target x profile, each a plan in the bundle; what is there already is kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msdm_engine.bundle.folder import check_may_change, claimed
from msdm_engine.bundle.plan_spec import PLAN_FOLDER, PLAN_PRECISIONS, PlanSpec, Range
from msdm_engine.bundle.reader import Bundle
from msdm_engine.doctor.probe import probe_gpus
from msdm_engine.errors import BackendError, RequestError, nearest
from msdm_export.plans.builder import (
    build_plan,
    check_options,
    needs_user_allocation,
    timing_cache_sha256,
)
from msdm_export.plans.cost import Cost, cost_of
from msdm_export.plans.network_walk import counts
from msdm_export.plans.options import BuildOptions
from msdm_export.plans.profiles import Profile, graph_stride, input_shapes, parse_profiles
from msdm_export.plans.source import Source, fixed_shapes, source_of
from msdm_export.plans.targets import Target, check_precision, parse_target, targets_of
from msdm_export.plans.toolchain import Toolchain, open_toolchain
from msdm_export.plans.writer import add_plan, bundle_to_build_in, is_built


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Args:
        folder: of the bundle, which plans are added to; None: the reference bundle, with ``out``.
        targets: as in ``sm_89``; empty: all that the backend knows.
        profiles: as in ``128:1,8,32``, see :mod:`msdm_export.plans.profiles`.
        memory_mib: of the GPU; a profile whose estimate exceeds it is refused before anything is built.
        out: build in a copy of the bundle at this folder, made when everything has been checked.
    """

    folder: Path | None
    backend: str
    targets: tuple[str, ...]
    profiles: tuple[str, ...]
    precision: str = "fp16"
    options: BuildOptions = BuildOptions()  # noqa: RUF009 (frozen)
    memory_mib: int | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Row:
    """A plan of a finished build: its name and entry, and whether it was there already."""

    name: str
    spec: PlanSpec
    kept: bool


def build(request: BuildRequest, report: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Builds what is missing.

    Raises:
        RequestError: unknown target, precision or backend, a profile that is empty, overlaps another or needs more
            memory than the GPU has, or an option that this TensorRT lacks.
        BackendError: TensorRT is not installed, cannot parse a graph, or fails; or a target that this machine's
            TensorRT cannot build for.
        BundleError: the bundle lacks the precision.
        OutputError: another build holds the bundle, or the disk is full.
    """
    if request.precision not in PLAN_PRECISIONS:
        raise RequestError(f"unknown precision '{request.precision}'", note=nearest(request.precision, PLAN_PRECISIONS))
    bundle = Bundle.open(request.folder)
    if request.out is None:
        check_may_change(bundle.folder, "plans")
    profiles = parse_profiles(request.profiles, bundle.manifest.stride, dynamic=request.options.dynamic)
    tools = open_toolchain(request.backend)
    words = request.targets or targets_of(request.backend, tools.trt)
    targets = [parse_target(word, request.backend, tools.trt) for word in words]
    check_precision(request.precision, targets)
    check_options(tools, request.options)
    if not tools.rtx:
        _check_targets_are_here(targets)
    sources = _sources(bundle, request.precision)
    if request.memory_mib is not None:
        for profile in profiles:
            check_memory(profile, sources, bundle.manifest.stride, request.memory_mib)
    folder = bundle_to_build_in(request.folder, request.out)
    with claimed(folder):
        bundle = Bundle.open(folder)  # again: now nobody else changes it
        return _rows(request, bundle, tools, _sources(bundle, request.precision), targets, profiles, report)


def _sources(bundle: Bundle, precision: str) -> list[Source]:
    return [source_of(bundle, graph, precision) for graph in bundle.manifest.graphs]


def _rows(
    request: BuildRequest,
    bundle: Bundle,
    tools: Toolchain,
    sources: Sequence[Source],
    targets: Sequence[Target],
    profiles: Sequence[Profile],
    report: Callable[[str], None],
) -> list[Row]:
    stride = bundle.manifest.stride
    wanted: dict[str, tuple[Source, Target, dict[str, Range]]] = {}
    for target, profile, source in itertools.product(targets, profiles, sources):
        dimensions = profile.dimensions(source.graph, source.spec, stride)
        wanted[plan_name(source, target, tools, dimensions, stride, request.options)] = source, target, dimensions
    rows = []
    for number, (name, (source, target, dimensions)) in enumerate(wanted.items(), start=1):
        spec = _spec(name, source, target, dimensions, tools, request.options)
        if is_built(bundle, name, spec):
            report(f"[{number}/{len(wanted)}] {name}: there already, made from the same inputs")
            rows.append(Row(name, bundle.manifest.plans[name], kept=True))
            continue
        report(f"[{number}/{len(wanted)}] {name}: building")
        measured: dict[str, Any] = {"timing_cache_sha256": timing_cache_sha256(request.options)}
        built = build_plan(tools, source, target, dimensions, request.options)
        measured |= {"seconds": round(built.seconds, 3), "layers": counts(built.layers)}
        entry = add_plan(bundle.folder, name, replace(spec, build=measured), built.data)
        report(f"[{number}/{len(wanted)}] {name}: {entry.size / 2**20:.1f} MiB in {built.seconds:.1f} s")
        rows.append(Row(name, entry, kept=False))
    return rows


def plan_name(
    source: Source, target: Target, tools: Toolchain, dimensions: dict[str, Range], stride: int, options: BuildOptions
) -> str:
    """``denoiser-fp16-sm_89-rtx-128x128-b8-g1``: graph, precision, target, backend, size in px, batch, branches."""

    def shown(name: str, factor: int = 1) -> str:
        low, _, high = (factor * value for value in dimensions[name])
        return str(low) if low == high else f"{low}to{high}"

    parts = [source.graph, source.precision, str(target), "rtx" if tools.rtx else "trt"]
    stride = graph_stride(source.graph, source.spec, stride)
    if "rows" in dimensions:
        parts.append(f"{shown('rows', stride)}x{shown('columns', stride)}")
    parts += [f"{name[0]}{shown(key)}" for key, name in _LETTERS.items() if key in dimensions]
    return "-".join(parts + ["stripped"] * options.strip)


_LETTERS = {"samples": "n", "batch": "b", "branches": "g"}


def _spec(
    name: str, source: Source, target: Target, dimensions: dict[str, Range], tools: Toolchain, options: BuildOptions
) -> PlanSpec:
    return PlanSpec(
        file=f"{PLAN_FOLDER}/{name}.plan",
        size=0,
        sha256="",
        graph=source.graph,
        graph_sha256=source.graph_sha256,
        compiled_sha256=source.sha256,
        backend=tools.backend,
        version=tools.version,
        target=str(target),
        precision=source.precision,
        profile=dimensions,
        options=options.recorded(user_allocation=needs_user_allocation(tools)),
    )


def _check_targets_are_here(targets: Sequence[Target]) -> None:
    """TensorRT measures kernels on the GPU that it builds for, so that GPU must be in this machine."""
    here = {gpu.target for gpu in probe_gpus().gpus}
    for target in targets:
        if str(target) not in here:
            raise BackendError(
                f"TensorRT cannot build for {target} here: this machine has {', '.join(sorted(here)) or 'no GPU'}",
                note="TensorRT times kernels on the GPU that it builds for",
                hint="build on a machine with that GPU; for RTX GPUs, --backend tensorrt-rtx builds on any machine",
            )


def check_memory(profile: Profile, sources: Sequence[Source], stride: int, memory_mib: int) -> None:
    """Refuses a profile whose largest shape needs more memory than the GPU has.

    Raises:
        RequestError: names the graph, the estimate, and the largest batch that fits.
    """
    for source in sources:
        needed = _largest_cost(profile, source, stride).device_bytes / 2**20
        if needed > memory_mib:
            raise RequestError(
                f"profile {profile} needs about {needed:.0f} MiB for the graph '{source.graph}'",
                note=f"an upper estimate: weights, tensors and unfused activations; the limit is {memory_mib} MiB",
                hint="lower the batch or the size, or raise --memory-mib",
            )


def _largest_cost(profile: Profile, source: Source, stride: int) -> Cost:
    largest = {name: high for name, (_, _, high) in profile.dimensions(source.graph, source.spec, stride).items()}
    return cost_of(fixed_shapes(source.data, input_shapes(source.graph, source.spec, largest)))

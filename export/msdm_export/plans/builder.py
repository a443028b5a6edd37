"""One graph, target and profile -> the bytes of a plan, through TensorRT's parser and Polygraphy's configuration."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from msdm_engine.backends.tensorrt_module import log_of
from msdm_engine.bundle.plan_spec import PLAN_BACKENDS, Range
from msdm_engine.errors import BackendError, InputError, RequestError
from msdm_export.plans.network_walk import Layer, walk
from msdm_export.plans.options import BuildOptions
from msdm_export.plans.profiles import input_shapes
from msdm_export.plans.source import Source, fixed_shapes
from msdm_export.plans.targets import Target
from msdm_export.plans.toolchain import Toolchain


@dataclass(frozen=True)
class Built:
    """A serialised plan, the layers that were parsed, and how long the build took."""

    data: bytes
    layers: list[Layer]
    seconds: float


def build_plan(
    tools: Toolchain, source: Source, target: Target, dimensions: dict[str, Range], options: BuildOptions
) -> Built:
    """Parses, walks and builds.

    Args:
        dimensions: range of each dynamic dimension; all fixed unless the build is dynamic.

    Raises:
        BackendError: the parser lacks an operator, the walk finds another type, or the builder fails; the builder's
            own log is in the note.
    """
    tools.messages.clear()
    static = all(low == high for low, _, high in dimensions.values())
    ranges = [
        input_shapes(source.graph, source.spec, {name: values[i] for name, values in dimensions.items()})
        for i in range(3)
    ]
    started = time.perf_counter()
    builder, network, parser = parse(tools, source, fixed_shapes(source.data, ranges[0]) if static else source.data)
    layers = walk(network, source, ranges[0] if static else None)
    from polygraphy.backend.trt import engine_bytes_from_network

    with _explained(tools, f"the {source.precision} graph '{source.graph}' for {target}", options):
        config = _config(tools, builder, network, target, None if static else ranges, options)
        data = bytes(engine_bytes_from_network((builder, network), config, save_timing_cache=_path(options)))
    del parser  # it holds the weights until the network is built
    return Built(data, layers, time.perf_counter() - started)


def parse(tools: Toolchain, source: Source, data: bytes) -> tuple[Any, Any, Any]:
    """Builder, network and parser of an ONNX model.

    Raises:
        BackendError: the parser refuses it; names the operator and the node.
    """
    trt = tools.trt
    builder = trt.Builder(tools.logger)
    network = builder.create_network(0)  # strongly typed: the only kind there is since TensorRT 11
    parser = trt.OnnxParser(network, tools.logger)
    if not parser.parse(data):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        named = [f"operator {e.node_operator()} of the node '{e.node_name()}'" for e in errors if e.node_operator()]
        where = named[0] if named else "the model"
        raise BackendError(
            f"{PLAN_BACKENDS[tools.backend]} {tools.version} cannot parse {where} in the graph '{source.graph}'",
            note="; ".join(error.desc() for error in errors) or log_of(tools.messages),
            hint="export the graph with operators that TensorRT has, or run this graph with ONNX Runtime",
        )
    return builder, network, parser


def _config(
    tools: Toolchain,
    builder: Any,
    network: Any,
    target: Target,
    ranges: list[dict[str, tuple[int, ...]]] | None,
    options: BuildOptions,
) -> Any:
    trt = tools.trt
    from polygraphy.backend.trt import CreateConfig, Profile

    profiles = []
    if ranges is not None:
        profile = Profile()
        for name in ranges[0]:
            profile.add(name, min=ranges[0][name], opt=ranges[1][name], max=ranges[2][name])
        profiles.append(profile)
    common: dict[str, Any] = {"profiles": profiles, "builder_optimization_level": options.level, "max_aux_streams": 0}
    if options.workspace_mib is not None:
        common["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: options.workspace_mib * 2**20}
    if options.strip:
        common |= {"strip_plan": True, "refittable": True}
    if not tools.rtx:
        common["load_timing_cache"] = _path(options)
        return CreateConfig(tf32=False, **common)(builder, network)
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

    create = CreateConfigRTX(compute_capabilities=[(target.major, target.minor)], **common)
    config = create(builder, network)
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32; Polygraphy leaves it on here
    config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    return config


def needs_user_allocation(tools: Toolchain) -> bool:
    """Whether this TensorRT can be told that a plan must never allocate; only TensorRT for RTX has the flag."""
    return hasattr(tools.trt.BuilderFlag, "REQUIRE_USER_ALLOCATION")


def timing_cache_sha256(options: BuildOptions) -> str | None:
    """Hash of the timing cache as it will be read; None: there is none yet."""
    path = options.timing_cache
    if path is None or not path.exists():
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"timing cache {path} cannot be read: {error.strerror}", hint="name a file") from error


def check_options(tools: Toolchain, options: BuildOptions) -> None:
    """Refuses an option that this TensorRT does not have.

    Raises:
        RequestError: a timing cache for TensorRT for RTX, which has none.
    """
    if tools.rtx and options.timing_cache is not None:
        raise RequestError(
            "--timing-cache with the backend 'tensorrt-rtx'",
            note="TensorRT for RTX measures no tactics while it builds; it specialises kernels when a plan is loaded",
            hint="leave --timing-cache out",
        )


def _path(options: BuildOptions) -> str | None:
    return None if options.timing_cache is None else str(options.timing_cache)


@contextmanager
def _explained(tools: Toolchain, what: str, options: BuildOptions) -> Iterator[None]:
    """A failed build as an error with the builder's own log."""
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):  # its messages come in the error
            yield
    except PolygraphyException as error:
        hint = "lower --level or raise --workspace-mib; the log above names the layer"
        if options.strip and tools.rtx:
            hint = "TensorRT for RTX strips weights on a machine with a GPU only: build there, or without --strip"
        raise BackendError(
            f"{PLAN_BACKENDS[tools.backend]} {tools.version} cannot build {what}",
            note=log_of(tools.messages),
            hint=hint,
        ) from error

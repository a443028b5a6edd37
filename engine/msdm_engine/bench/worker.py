"""The process of one setting: checks what the engine gives, then times it. JSON in, JSON out."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.backends import runs_on_cpu
from msdm_engine.backends.onnx_profile import products_of
from msdm_engine.bench.setting import Plan, Setting
from msdm_engine.bundle.manifest import GraphSpec
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER
from msdm_engine.engine import Engine
from msdm_engine.errors import BackendError, MsdmError
from msdm_engine.output.job import fill, set_header
from msdm_engine.output.sink import OutputChoice
from msdm_engine.output.verify import verify_set
from msdm_engine.pairs import PairRequest
from msdm_engine.pipeline.padding import Padding
from msdm_engine.requests.compose import ComposedGroup, compose
from msdm_engine.requests.request import GroupRequest, Layout, SetRequest
from msdm_engine.stage_clock import StageClocks

PERCENTILES = (50, 90, 99)


def measure(setting: Setting, plan: Plan) -> dict[str, Any]:
    """Everything of one setting; see :func:`msdm_engine.bench.run.run_bench` for what the numbers mean."""
    bundle = Bundle.open(plan.bundle)
    together = setting.batch * setting.parallel
    request = _request(setting, max(together, plan.singles, plan.set_pairs))
    groups = compose(bundle.manifest, request, setting.batch)
    wanted = list(groups[0].pairs())
    options: dict[str, Any] = {"backend": plan.backend, "precision": plan.precision}
    if runs_on_cpu(plan.backend):  # others have no threads
        options |= {"threads": setting.threads, "parallel": setting.parallel}
    with Engine.open(bundle, **options) as engine:
        _check(engine, groups[0], wanted[:together])  # warms up, too
        whole = _seconds(lambda: _sample(engine, groups[0], wanted[:together]), plan.repeats)
        inputs = denoiser_inputs(bundle, setting)
        engine.backend.run(DENOISER, inputs)
        step = _seconds(lambda: engine.backend.run(DENOISER, inputs), max(plan.repeats, 5))
        told = {
            "pairs_per_second": together / float(np.median(whole)),
            "batch_s": _quartiles(whole),
            "step_s": _quartiles(step),
        }
        if plan.singles:
            (single,) = compose(bundle.manifest, request, 1)
            waits = [_seconds(partial(_sample, engine, single, [one]), 1)[0] for one in wanted[: plan.singles]]
            told["latency"] = {
                "requests": len(waits),
                **{f"p{p}_s": float(np.percentile(waits, p)) for p in PERCENTILES},
            }
        if plan.set_pairs:
            told["stages"] = _stages(engine, request, groups, plan.set_pairs)
    told["peak_memory_mib"] = _peak_memory_mib()  # before the counting, which opens a session of its own
    products = products_of(bundle, DENOISER, inputs)
    told["step_flops"] = sum(product.flops * times for product, times in products.items())
    told["products"] = [[product.m, product.k, product.n, times] for product, times in products.items()]
    return told


def _request(setting: Setting, count: int) -> SetRequest:
    side = setting.size_px
    return SetRequest(
        (GroupRequest(Layout("round"), count=count, height_px=side, width_px=side, steps=setting.steps),), seed=1
    )


def _sample(engine: Engine, group: ComposedGroup, wanted: list[PairRequest]) -> list[np.ndarray]:
    return [pair.image for pair in engine.sample(wanted, group.sampling, group.guidance)]


def _check(engine: Engine, group: ComposedGroup, wanted: list[PairRequest]) -> None:
    """Refuses to time what is not right: blank pictures, or other ones the second time."""
    first, second = _sample(engine, group, wanted), _sample(engine, group, wanted)
    if not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)):
        raise BackendError("bench: the same requests gave other pictures the second time")
    if len(first) != len(wanted) or any(picture.std() < 1 for picture in first):
        raise BackendError("bench: a picture is blank", hint="check the bundle with `msdm-engine demo`")


def _seconds(function: Callable[[], object], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return seconds


def _quartiles(seconds: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(seconds, [25, 50, 75]).tolist()
    return {"median": median, "low": low, "high": high, "fastest": min(seconds), "repeats": len(seconds)}


def denoiser_inputs(bundle: Bundle, setting: Setting) -> dict[str, np.ndarray]:
    """Inputs of one step without guidance, of standard normal values."""
    stride = bundle.manifest.stride
    height, width = Padding.of(setting.size_px, setting.size_px, stride).shape
    known = {"batch": setting.batch, "branches": 1, "rows": height // stride, "columns": width // stride}
    spec: GraphSpec = bundle.manifest.graphs[DENOISER]
    generator = np.random.default_rng(0)

    def side(dimension: int | str) -> int:
        if isinstance(dimension, int):
            return dimension
        factor, _, name = dimension.rpartition("*")
        return int(factor or 1) * known[name]

    inputs = {t.name: generator.standard_normal([side(d) for d in t.shape], np.float32) for t in spec.inputs}
    inputs["row"] = np.array([1, 1, 0, 0, 0], np.float32)
    inputs["guidance"] = np.ones_like(inputs["guidance"])
    return inputs


def _stages(engine: Engine, request: SetRequest, groups: list[ComposedGroup], count: int) -> dict[str, Any]:
    """Busy, starved and blocked time of the stages while a set is written: the command's, and inside of ``sample``."""
    clocks, before = StageClocks(), engine.times()
    with tempfile.TemporaryDirectory() as folder:
        header = set_header(engine, request, groups) | {"output": OutputChoice().header(set(groups[0].work))}
        fill(engine, groups, range(count), Path(folder) / "set", header, resume=False, clocks=clocks)
        found = verify_set(Path(folder) / "set")
        if found.whole != count:
            raise BackendError(f"bench: the set that was written is not whole: {found.problems[:1]}")
    inside = {name: (times - before[name]).as_dict() for name, times in engine.times().items() if name in before}
    return clocks.as_dict() | inside


def _peak_memory_mib() -> float | None:
    """Most resident memory of this process so far; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


def main() -> None:
    """Reads the setting from standard input."""
    given = json.load(sys.stdin)
    bundle = given["plan"]["bundle"]
    plan = Plan(**given["plan"] | {"bundle": Path(bundle) if bundle else None})
    try:
        told = measure(Setting(**given["setting"]), plan)
        told["setting"] = asdict(Setting(**given["setting"]))
    except MsdmError as error:
        told = {"error": [type(error).__name__, error.what, error.note, error.hint]}
    print(json.dumps(told))


if __name__ == "__main__":
    main()

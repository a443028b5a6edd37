"""Pairs of the reference bundle through two backends, and plans of its graphs against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.sample import requests
from benchmarks.timer import measure

from msdm_engine import Bundle, Engine, Pair, PairRequest
from msdm_engine.plan_spec import PlanSpec

#: Largest difference of a pixel (of 255) and the relative L2 error of a float16 graph that are taken for agreement.
MAX_PIXEL, MAX_RELATIVE_L2 = 2, 1e-2


def compare_backends(reference: str, other: str) -> dict[str, Any]:
    """The same requests on both: largest difference of a pixel, pairs a second."""
    bundle = Bundle.open()
    wanted = requests(bundle, bundle.manifest.sampling.size_px)
    pictures, seconds = {}, {}
    for name in (reference, other):
        with Engine.open(bundle, backend=name) as engine:
            pictures[name] = np.stack([pair.image for pair in engine.sample(wanted)]).astype(int)
            functions: dict[str, Callable[[], object]] = {"run": partial(_sample, engine, wanted)}
            seconds[name] = measure(functions, warmups=0, repeats=3)["run"].median_s
    difference = int(np.abs(pictures[reference] - pictures[other]).max())
    assert difference <= MAX_PIXEL, f"a pixel differs by {difference} of 255"
    return {"largest_difference": difference, "pairs_per_second": {n: len(wanted) / s for n, s in seconds.items()}}


def _sample(engine: Engine, wanted: Sequence[PairRequest]) -> list[Pair]:
    return list(engine.sample(wanted))


def build_and_run(folder: Path, backend: str, target: str) -> dict[str, Any]:
    """Builds each graph in float16, loads and runs it, and compares it with the same graph on the CPU."""
    from msdm_export.plans.job import BuildRequest, build
    from msdm_export.precision.variants import add_precision

    sampling = Bundle.open().manifest.sampling
    add_precision(Bundle.open().folder, "fp16", out=folder)
    profile = f"{sampling.size_px}:{sampling.batch}"
    build(BuildRequest(folder, backend, (target,), (profile,), "fp16"))
    bundle = Bundle.open(folder)
    return {name: _run(bundle, name, plan) for name, plan in bundle.manifest.plans.items()}


def _run(bundle: Bundle, name: str, plan: PlanSpec) -> dict[str, Any]:
    import onnxruntime
    from polygraphy.backend.trt import TrtRunner, engine_from_bytes

    from msdm_export.plans.profiles import input_shapes

    spec = bundle.in_precision(plan.precision)[plan.graph]
    shapes = input_shapes(plan.graph, spec, {key: low for key, (low, _, _) in plan.profile.items()})
    rng = np.random.default_rng(0)
    feed = {t.name: rng.uniform(0, 1, shapes[t.name]).astype(t.dtype) for t in spec.inputs}
    session = onnxruntime.InferenceSession(bundle.contents[spec.file], providers=["CPUExecutionProvider"])
    expected = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))
    with TrtRunner(engine_from_bytes(bundle.plan_bytes(name))) as runner:
        found = {key: np.array(value) for key, value in runner.infer(feed).items()}
        seconds = measure({"run": lambda: runner.infer(feed)}, warmups=2, repeats=9)["run"].as_dict()
    errors = {key: _relative_l2(found[key], value) for key, value in expected.items()}
    worst = max(errors, key=lambda key: errors[key])
    assert errors[worst] < MAX_RELATIVE_L2, f"output '{worst}' of {name} is {errors[worst]:.2e} off"
    return {"relative_l2": errors, "seconds": seconds}


def _relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    difference = found.astype(np.float64) - expected
    return float(np.linalg.norm(difference)) / max(float(np.linalg.norm(expected.astype(np.float64))), 1e-12)

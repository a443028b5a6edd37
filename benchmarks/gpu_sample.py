"""Pairs of the reference bundle through two backends, and plans of its graphs against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from benchmarks.sample import requests
from benchmarks.timer import measure

from msdm_engine import Bundle, Engine, Pair, PairRequest
from msdm_engine.backends import Backend, open_backend
from msdm_engine.bundle.graph_shapes import shapes_of

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


def compare_plans(bundle: Bundle, backend: str) -> dict[str, Any]:
    """Every plan of the bundle through the engine's backend, against the same graph on the CPU; and its time."""
    plans = open_backend(backend, bundle, precision="fp16")
    reference = open_backend("onnxruntime", bundle, precision="fp16")
    found = {name: _compare(bundle, name, plans, reference) for name in bundle.manifest.plans}
    for opened in (plans, reference):
        opened.close()
    return found


def _compare(bundle: Bundle, name: str, plans: Backend, reference: Backend) -> dict[str, Any]:
    plan = bundle.manifest.plans[name]
    spec = bundle.in_precision(plan.precision)[plan.graph]
    shapes = shapes_of(plan.graph, spec.inputs, {key: low for key, (low, _, _) in plan.profile.items()})
    rng = np.random.default_rng(0)
    feed = {t.name: rng.uniform(0, 1, shapes[t.name]).astype(t.dtype) for t in spec.inputs}
    expected, found = reference.run(plan.graph, feed), plans.run(plan.graph, feed)
    errors = {key: _relative_l2(found[key], value) for key, value in expected.items()}
    worst = max(errors, key=lambda key: errors[key])
    assert errors[worst] < MAX_RELATIVE_L2, f"output '{worst}' of {name} is {errors[worst]:.2e} off"
    seconds = measure({"run": lambda: plans.run(plan.graph, feed)}, warmups=2, repeats=9)["run"].as_dict()
    return {"relative_l2": errors, "seconds_with_copies": seconds}


def _relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    difference = found.astype(np.float64) - expected
    return float(np.linalg.norm(difference)) / max(float(np.linalg.norm(expected.astype(np.float64))), 1e-12)

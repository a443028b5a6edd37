"""Pairs a second over batch and size, and the share of the GPU's matrix peak that a step reaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from benchmarks.sample import requests
from benchmarks.timer import measure

from msdm_engine import Bundle, Engine, PairRequest
from msdm_engine.sampling.guidance import NO_GUIDANCE

#: Size in pixels and batch, from cheap to dear.
SETTINGS = ((128, 1), (128, 4), (128, 16), (256, 1), (256, 4))
PROFILES = ("128:1,4,16", "256:1,4")
#: No setting is begun after this long: a part has eight minutes, builds included.
BUDGET_S = 150.0


def sweep(
    open_engine: Callable[[], Engine], settings: Iterable[tuple[int, int]] = SETTINGS, budget_s: float = BUDGET_S
) -> dict[str, Any]:
    """Pairs a second at each setting, without guidance; what there was no time for is listed.

    Raises:
        AssertionError: the same requests gave other pixels the second time.
    """
    started, found, left = time.perf_counter(), {}, []
    with open_engine() as engine:
        for size_px, batch in settings:
            name = f"{size_px} px, batch {batch}"
            if time.perf_counter() - started > budget_s:
                left.append(name)
                continue
            wanted = _requests(engine.bundle, size_px, max(batch, 4))
            sampling = engine.bundle.manifest.sampling.changed(batch=batch)
            run = partial(_pictures, engine, wanted, sampling)
            assert np.array_equal(run(), run()), f"{name}: the same requests gave other pixels"
            timing = measure({"run": run}, warmups=0, repeats=5)["run"]
            found[name] = {"pairs_per_second": len(wanted) / timing.median_s, **timing.as_dict()}
    return {"steps": engine.bundle.manifest.sampling.steps, "settings": found, "not_reached": left}


def _requests(bundle: Bundle, size_px: int, count: int) -> list[PairRequest]:
    some = requests(bundle, size_px)
    return [some[i % len(some)] for i in range(count)]


def _pictures(engine: Engine, wanted: list[PairRequest], sampling: Any) -> np.ndarray:
    return np.stack([pair.image for pair in engine.sample(wanted, sampling, NO_GUIDANCE)])


def share_of_peak(step_s: float, flops: int, gemm_s: float, side: int) -> dict[str, float]:
    """Both rates in TFLOP/s, 2 for each multiply-accumulate, and their quotient.

    Args:
        step_s, flops: of one step of the denoiser; convolutions and matrix products only.
        gemm_s: of one product of two matrices of ``side`` x ``side`` in half precision.
    """
    peak, reached = 2 * side**3 / gemm_s, flops / step_s
    return {"peak_tflops": peak / 1e12, "step_tflops": reached / 1e12, "share": reached / peak}

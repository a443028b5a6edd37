"""What changes a pixel, measured: ``python -m benchmarks.determinism``.

The same pairs again, in another order, in another batch shape and with another number of threads; for each the
largest difference from the first run in 8-bit steps and the share of values that differ. The engine promises zero for
the first two and at most 2 for the others. Writes ``benchmarks/results/determinism.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchmarks.timer import environment, write_json

from msdm_engine import Bundle, Engine, PairRequest
from msdm_engine.requests.compose import compose
from msdm_engine.requests.request import GroupRequest, Layout, SetRequest

RESULT = Path(__file__).parent / "results" / "determinism.json"
PAIRS, SIZE_PX, BATCH, THREADS = 8, 128, 4, 2
LIMIT = 2

Pictures = dict[int, np.ndarray]


def generate(bundle: Bundle, pairs: list[PairRequest], batch: int, threads: int) -> Pictures:
    """Pictures by pair number."""
    with Engine.open(bundle, threads=threads, parallel=1) as engine:
        sampling = bundle.manifest.sampling.changed(batch=batch)
        return {pair.request.index: pair.image for pair in engine.sample(pairs, sampling)}


def main() -> None:
    """Runs all variants and refuses to report one that breaks the promise as kept."""
    bundle = Bundle.open()
    group = GroupRequest(Layout("columnar"), count=PAIRS, height_px=SIZE_PX, width_px=SIZE_PX)
    (composed,) = compose(bundle.manifest, SetRequest((group,), seed=7))
    pairs = list(composed.pairs())
    variants: dict[str, tuple[int, Callable[[], Pictures]]] = {
        "again": (0, lambda: generate(bundle, pairs, BATCH, THREADS)),
        "reversed order": (0, lambda: generate(bundle, pairs[::-1], BATCH, THREADS)),
        "three of them (a short batch, filled up)": (0, lambda: generate(bundle, pairs[2:5], BATCH, THREADS)),
        "batch 1": (LIMIT, lambda: generate(bundle, pairs, 1, THREADS)),
        "batch 8": (LIMIT, lambda: generate(bundle, pairs, 8, THREADS)),
        "one thread": (LIMIT, lambda: generate(bundle, pairs, BATCH, 1)),
    }
    baseline = generate(bundle, pairs, BATCH, THREADS)
    results = {}
    for name, (promised, run) in variants.items():
        found = run()
        differences = np.stack([np.abs(found[i].astype(int) - baseline[i]) for i in found])
        largest = int(differences.max())
        results[name] = {
            "pairs": len(found),
            "largest_difference_of_255": largest,
            "share_of_values_that_differ": float((differences > 0).mean()),
            "promised_at_most": promised,
            "kept": largest <= promised,
        }
    document = {
        "what": f"{PAIRS} columnar pairs of {SIZE_PX} px against a first run with batch {BATCH}, {THREADS} threads",
        "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "variants": results,
        "environment": environment("numpy", "onnxruntime", "opencv-python-headless"),
    }
    write_json(RESULT, document)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

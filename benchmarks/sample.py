"""What the reference bundle costs on this machine's CPU: ``python -m benchmarks.sample``.

Import time of the engine, opening the bundle, pairs a second from conditions to PNG files, and guidance's price; the
output is checked (finite, the mask is the request's, the same bytes twice) before a number is printed. Writes
``benchmarks/results/sample.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from benchmarks.timer import environment, measure, write_json

from msdm_engine import Bundle, Engine, PairRequest
from msdm_engine.output.job import generate
from msdm_engine.output.verify import verify_set
from msdm_engine.requests.compose import compose
from msdm_engine.requests.request import GroupRequest, Layout, SetRequest
from msdm_engine.sampling.guidance import Guidance

RESULT = Path(__file__).parent / "results" / "sample.json"
PAIRS = 8


def import_seconds() -> float:
    """Wall time of ``import msdm_engine`` beyond that of an empty interpreter."""

    def run(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    pairs = [(run("import msdm_engine"), run("pass")) for _ in range(7)]
    return float(np.median([with_import - without for with_import, without in pairs]))


def requests(bundle: Bundle, size_px: int, count: int = PAIRS) -> list[PairRequest]:
    """Columnar layouts in the bundle's columnar appearance."""
    group = GroupRequest(Layout("columnar"), count=count, height_px=size_px, width_px=size_px)
    (composed,) = compose(bundle.manifest, SetRequest((group,), seed=1))
    return list(composed.pairs())


def check(engine: Engine, wanted: list[PairRequest]) -> None:
    """Refuses to time anything that is not right."""
    first, second = list(engine.sample(wanted)), list(engine.sample(wanted))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.image, b.image), "the same request gave another picture"
        assert a.request.instances is not None
        assert np.array_equal(a.instances, a.request.instances)
        assert a.image.std() > 1, "the picture is blank"


def main() -> None:
    """Runs everything and writes the JSON."""
    bundle = Bundle.open()
    opening = measure({"open": lambda: Engine.open(bundle).close()}, warmups=1, repeats=5)["open"]
    results = {}
    with Engine.open(bundle) as engine:
        none = {"none": Guidance()}
        guided = none | {"colour": Guidance(colour=0.5), "colour and text": Guidance(0.5, 0.5)}
        for size_px, guidances in ((128, guided), (256, none)):
            wanted = requests(bundle, size_px)
            check(engine, wanted)
            functions = {
                name: (lambda g=guidance, w=wanted: list(engine.sample(w, guidance=g)))
                for name, guidance in guidances.items()
            }
            timings = measure(functions, warmups=0, repeats=3)  # `check` has warmed up
            results[f"{size_px} px"] = {
                name: {**timing.as_dict(), "pairs_per_second": round(PAIRS / timing.median_s, 3)}
                for name, timing in timings.items()
            }
        identity = engine.backend.identity
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        group = GroupRequest(Layout("columnar"), count=16)
        start = time.perf_counter()
        generate(SetRequest((group,), seed=1), out)
        whole = time.perf_counter() - start
        assert verify_set(out).problems == ()
    sampling = bundle.manifest.sampling
    document = {
        "what": f"{PAIRS} columnar pairs, {sampling.solver}, {sampling.steps} steps, batch {sampling.batch}, "
        "in memory; files: 16 pairs with the bundle opened, verified and everything written",
        "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "bundle_mib": round(sum(entry.size for entry in bundle.manifest.files.values()) / 2**20, 2),
        "engine": identity,
        "import_seconds": round(import_seconds(), 4),
        "open": opening.as_dict(),
        "sample": results,
        "files": {"pairs": 16, "seconds": round(whole, 2), "pairs_per_second": round(16 / whole, 3)},
        "environment": environment("numpy", "onnxruntime", "opencv-python-headless"),
    }
    write_json(RESULT, document)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

"""Builds the reference bundle's plans for two generations of RTX GPUs: ``python -m benchmarks.plans``.

Needs no GPU: TensorRT for RTX compiles for a capability that is named. Makes the float16 graphs in a scratch copy,
walks and builds each for both targets, asks for the same build again (nothing may be built), verifies every plan
against its hash, and only then writes ``benchmarks/results/plans.json`` and the table of ``docs/tensorrt.md``.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.timer import environment, write_json

from msdm_engine import Bundle
from msdm_engine.bundle.plan_spec import PlanSpec
from msdm_export.plans.cost import cost_of
from msdm_export.plans.job import BuildRequest, build
from msdm_export.plans.profiles import input_shapes
from msdm_export.plans.source import fixed_shapes, source_of
from msdm_export.plans.table import HEADERS, cells, markdown
from msdm_export.precision.variants import add_precision

RESULT = Path(__file__).parent / "results" / "plans.json"
PAGE = Path(__file__).parent.parent / "docs" / "tensorrt.md"
TARGETS = ("sm_89", "sm_120")
PRECISION = "fp16"
MARKS = ("<!-- table: python -m benchmarks.plans -->", "<!-- end of table -->")


def row(bundle: Bundle, name: str, spec: PlanSpec) -> dict[str, Any]:
    """What the JSON keeps of a plan: everything in its manifest entry, and what a run costs."""
    source = source_of(bundle, spec.graph, spec.precision)
    shapes = input_shapes(spec.graph, source.spec, {key: low for key, (low, _, _) in spec.profile.items()})
    cost = cost_of(fixed_shapes(source.data, shapes))
    return {"name": name, **vars(spec), "flops": cost.flops, "device_bytes_estimate": cost.device_bytes}


def table_of(document: dict[str, Any]) -> str:
    """The Markdown table of a result."""
    keys = PlanSpec.__dataclass_fields__.keys()
    rows = [(r, PlanSpec(**{k: v for k, v in r.items() if k in keys})) for r in document["plans"]]
    headers = (*HEADERS, "GFLOP a run", "device MiB (estimate)")
    return markdown(
        [
            [*cells(r["name"], spec), f"{r['flops'] / 1e9:.2f}", f"{r['device_bytes_estimate'] / 2**20:.0f}"]
            for r, spec in rows
        ],
        headers,
    )


def write_table(document: dict[str, Any], page: Path = PAGE) -> None:
    """Puts the table between its marks."""
    begin, end = map(re.escape, MARKS)
    text, found = re.subn(
        f"{begin}.*{end}", lambda _: f"{MARKS[0]}\n{table_of(document)}\n{MARKS[1]}", page.read_text(), flags=re.DOTALL
    )
    if found != 1:
        raise SystemExit(f"{page} has no place for the table: {MARKS[0]} ... {MARKS[1]}")
    page.write_text(text)


def main() -> None:
    reference = Bundle.open()
    sampling = reference.manifest.sampling
    profiles = (f"{sampling.size_px}:{sampling.batch}:1,2",)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "reference"
        add_precision(reference.folder, PRECISION, out=folder)
        request = BuildRequest(folder, "tensorrt-rtx", TARGETS, profiles, PRECISION)
        started = time.perf_counter()
        rows = build(request, report=lambda line: print(line, file=sys.stderr))
        seconds = time.perf_counter() - started
        assert all(again.kept for again in build(request)), "the same build again was not a no-op"
        bundle = Bundle.open(folder)
        for name, spec in bundle.manifest.plans.items():
            assert len(bundle.plan_bytes(name)) == spec.size
        document = {
            "what": f"every graph of the reference bundle in {PRECISION}, profile {profiles[0]}, built without a GPU",
            "bundle": {"name": reference.manifest.name, "sha256": reference.sha256},
            "targets": list(TARGETS),
            "seconds": round(seconds, 1),
            "plans": [row(bundle, r.name, r.spec) for r in rows],
            "checked": "walk of the parsed network, hash of each plan, the same build again built nothing",
            "unproven": "loading and running: that takes a GPU of each target",
            "environment": environment("numpy", "onnx", "polygraphy", "tensorrt-rtx-cu13"),
        }
    write_json(RESULT, document)
    write_table(document)
    print(table_of(document))


if __name__ == "__main__":
    main()

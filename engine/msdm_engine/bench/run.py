"""The whole bench: a base setting, and from it one quantity at a time."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.backends import runs_on_cpu
from msdm_engine.bench.setting import Plan, Setting, as_given, in_process
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import FLOAT32
from msdm_engine.cores import cores
from msdm_engine.output.job import processor_name
from msdm_engine.pipeline.parallel import share_cores

CONVENTION = (
    "FLOPs: 2 for each multiply-add of convolutions and matrix products of one denoiser step without guidance; "
    "element-wise work counts as none. Peak: the same products by NumPy's BLAS in float32, as [O, I kh kw] x "
    "[I kh kw, B H W] with the patches in place, in the same run with the same threads, before and after; the faster."
)


@dataclass(frozen=True)
class Bench:
    """What is measured.

    Args:
        batches, sizes_px, steps, threads: the first of each is the base setting's; the others are tried one at a time.
        parallel: batches side by side, on the CPU; 0: as many as the cores have room for, as `msdm-engine sample` does.
        quick: fewer repeats; numbers to look at and not to quote.
    """

    bundle: Path | None = None
    backend: str = "onnxruntime"
    precision: str = FLOAT32
    batches: Sequence[int] = (4, 1, 2, 8)
    sizes_px: Sequence[int] = (128, 64, 256)
    steps: Sequence[int] = (8, 2, 20)
    threads: Sequence[int] = ()
    parallel: int = 0
    quick: bool = False

    def settings(self) -> list[Setting]:
        """The base setting first; each setting once."""
        on_cpu = runs_on_cpu(self.backend)
        threads = self.threads or ((1, cores()) if on_cpu and cores() > 1 else (1,))
        parallel = {count: share_cores(count, self.parallel)[1] if on_cpu else 1 for count in threads}
        base = Setting(self.batches[0], self.sizes_px[0], self.steps[0], threads[0], parallel[threads[0]])
        varied = [
            *(replace(base, batch=batch) for batch in self.batches),
            *(replace(base, size_px=size) for size in self.sizes_px),
            *(replace(base, steps=steps) for steps in self.steps),
            *(replace(base, threads=count, parallel=parallel[count]) for count in threads),
        ]
        return list(dict.fromkeys([base, *varied]))


def run_bench(bench: Bench, tell: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Measures all settings, each in a process of its own. Ctrl-C ends it with what is measured so far.

    Of each setting: pairs a second of whole batches, as many as run side by side, from requests to pictures in memory
    (median); seconds of such a round, and of a denoiser step on its own (median, quartiles); peak resident memory of
    the process; the share of the matrix peak that a step on its own reaches. Of the base setting also the percentiles
    of the latency of single requests, and the stages' busy shares while a set is written. Every output is checked
    before it is timed: the same twice, and not blank.

    Raises:
        MsdmError: of the bundle, the backend or a setting.
    """
    opened = Bundle.open(bench.bundle)
    settings = bench.settings()
    repeats = 2 if bench.quick else 5
    rows: list[dict[str, Any]] = []
    document: dict[str, Any] = {
        "bundle": {"name": opened.manifest.name, "sha256": opened.sha256},
        "backend": bench.backend,
        "precision": bench.precision,
        "convention": CONVENTION,
        "quick": bench.quick,
        "machine": _machine(),
        "settings": rows,
        "interrupted": False,
    }
    try:
        for setting in settings:
            plan = Plan(bench.bundle, bench.backend, bench.precision, repeats)
            if setting == settings[0]:
                singles = 5 if bench.quick else 30
                plan = replace(plan, singles=singles, set_pairs=max(4 * setting.batch * setting.parallel, 8))
            rows.append(_measured(setting, plan))
            tell(row_text(rows[-1]))
    except KeyboardInterrupt:
        document["interrupted"] = True
    document["growth"] = growth(rows)
    return document


def _measured(setting: Setting, plan: Plan) -> dict[str, Any]:
    row = in_process("worker", setting.threads, as_given(setting, plan))
    products = row.pop("products")
    # Before and after: the clock of a processor falls and others come and go. The faster is the stricter bound.
    peaks = [in_process("peak", setting.threads, products)["seconds"] for _ in range(2)]
    row["peak_gflop_s"] = row["step_flops"] / min(peaks) / 1e9
    row["step_gflop_s"] = row["step_flops"] / row["step_s"]["fastest"] / 1e9
    row["fraction_of_peak"] = row["step_gflop_s"] / row["peak_gflop_s"]
    return row


def growth(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Exponents e of cost ~ quantity^e, from the settings that differ from the first in that quantity alone.

    ``area``: seconds of a round against pixels; ``batch``: seconds of a round against pairs of a batch. 1 is linear.
    """
    exponents = {}
    for name, key, power in (("area", "size_px", 2), ("batch", "batch", 1)):
        same = [r for r in rows if all(r["setting"][k] == v for k, v in rows[0]["setting"].items() if k != key)]
        if len({r["setting"][key] for r in same}) >= 2:
            x = np.log([float(r["setting"][key]) ** power for r in same])
            exponents[name] = float(np.polyfit(x, np.log([r["batch_s"]["median"] for r in same]), 1)[0])
    return exponents


def row_text(row: dict[str, Any]) -> str:
    """One line of the table."""
    memory = f"{row['peak_memory_mib']:.0f}" if row["peak_memory_mib"] is not None else "?"
    return (
        f"{Setting(**row['setting'])!s:44s} {row['pairs_per_second']:9.2f} pairs/s  step "
        f"{1e3 * row['step_s']['median']:9.2f} ms  {row['step_gflop_s']:8.1f} GFLOP/s  "
        f"{row['fraction_of_peak']:6.1%} of peak  {memory:>6s} MiB"
    )


def closing_text(document: dict[str, Any]) -> str:
    """What stands under the table."""
    lines = [f"cost grows with {name}^{value:.2f}" for name, value in document["growth"].items()]
    if document["settings"]:
        base = document["settings"][0]
        percentiles = {k: v for k, v in base["latency"].items() if k != "requests"}
        shown = ", ".join(f"{name[:-2]} {1e3 * value:.0f} ms" for name, value in percentiles.items())
        lines.append(f"latency of {base['latency']['requests']} single requests: {shown}")
        lines += [
            f"stage {n}: {s['utilisation']:.0%} busy, {s['blocked_s']:.2f} s blocked" for n, s in base["stages"].items()
        ]
    return "\n".join([*lines, *(["interrupted: the rest was not measured"] if document["interrupted"] else [])])


def _machine() -> dict[str, Any]:
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    versions = {name: version(name) for name in ("msdm", "numpy")}
    return {
        "processor": processor_name(),
        "cores": cores(),
        "load_1min": load,
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": versions,
    }

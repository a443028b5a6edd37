"""The engine end to end against the bare loop of its own steps: ``python -m benchmarks.pipeline``.

The bare loop runs the denoiser graph once a row, on arrays made before, and nothing else: no conditions, no noise, no
pictures. Both run the same weights, table, batch and threads in turns; "files" adds PNG encoding and everything that
`msdm-engine sample` writes. Pairs are compared with the plain sampler's before a number is printed. Writes
``benchmarks/results/pipeline.json``, with the busy, starved and blocked time of each stage.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.timer import environment, measure, write_json

from msdm_engine import Bundle, Engine, PairRequest
from msdm_engine.bundle.manifest import Sampling
from msdm_engine.contract import CONDITIONER, DENOISER, DENOISER_INPUTS
from msdm_engine.output.job import generate
from msdm_engine.pipeline.conditions import Conditions
from msdm_engine.pipeline.handover import pictures_from_states
from msdm_engine.requests.compose import compose
from msdm_engine.requests.request import GroupRequest, Layout, SetRequest
from msdm_engine.sampling.guidance import NO_GUIDANCE
from msdm_engine.sampling.noise import gaussian

RESULT = Path(__file__).parent / "results" / "pipeline.json"


class BareLoop:
    """The steps of whole batches and nothing else, by ``Backend.run``."""

    def __init__(self, engine: Engine, wanted: list[PairRequest], sampling: Sampling) -> None:
        self._run, self._table = engine.backend.run, sampling.table().astype(np.float32)
        self._batches = len(wanted) // sampling.batch
        requests = wanted[: sampling.batch]
        specs = engine.bundle.manifest.graphs[CONDITIONER].inputs
        size = {"samples": sampling.batch, "16*rows": sampling.size_px, "16*columns": sampling.size_px}
        given = {t.name: np.zeros([size.get(str(n)) or int(n) for n in t.shape], np.float32) for t in specs}
        Conditions(engine.bundle, engine.backend, engine.tokenizer).write(requests, ["all"], given)
        context = self._run(CONDITIONER, given)
        self._context = {name: value.reshape(1, sampling.batch, *value.shape[1:]) for name, value in context.items()}
        side, channels = sampling.size_px, engine.bundle.manifest.state_channels
        self._noise = [
            np.stack([gaussian(r.seed, r.index, step, channels, side, side) for r in requests])
            for step in range(len(self._table) + 1)
        ]
        self._weights = np.ones((1, sampling.batch), np.float32)
        self._start = (np.float64(sampling.table()[0, 0]) * self._noise[0]).astype(np.float32)
        self._zeros = np.zeros_like(self._start)

    def __call__(self) -> np.ndarray:
        """The last state of the last batch; every batch is the first one again."""
        x = self._start
        for _ in range(self._batches):
            x, d = self._start, self._zeros
            for i, row in enumerate(self._table, start=1):
                z = self._noise[i] if row[4] != 0 else self._zeros
                step = dict(zip(DENOISER_INPUTS, (x, d, z, row, self._weights), strict=True))
                out = self._run(DENOISER, {**step, **self._context})
                x, d = out["state_next"], out["denoised"]
        return x


def check(engine: Engine, wanted: list[PairRequest], sampling: Sampling, bare: BareLoop) -> None:
    """The engine's first batch is the bare loop's, to the byte."""
    state = bare()
    pairs = list(engine.sample(wanted[: sampling.batch], sampling, NO_GUIDANCE))
    for pair, one in zip(pairs, state, strict=True):
        expected = pictures_from_states(one)
        assert np.array_equal(pair.image, expected), "the engine's picture is not that of the bare loop"


def setting(bundle: Bundle, threads: int, sampling: Sampling, batches: int, repeats: int) -> dict[str, Any]:
    """One line of the table: ratios of the bare loop's time to the engine's, and where the engine's went."""
    size, count = sampling.size_px, sampling.batch * batches
    group = GroupRequest(
        Layout("columnar"), count=count, height_px=size, width_px=size, steps=sampling.steps, solver=sampling.solver
    )
    request = SetRequest((group,), seed=1)
    (composed,) = compose(bundle.manifest, request, sampling.batch)
    wanted = list(composed.pairs())
    with tempfile.TemporaryDirectory() as folder, Engine.open(bundle, threads=threads, parallel=1) as engine:
        bare = BareLoop(engine, wanted, sampling)
        check(engine, wanted, sampling, bare)

        def files() -> None:
            out = Path(folder) / "set"
            shutil.rmtree(out, ignore_errors=True)
            generate(request, out, bundle=bundle.folder, threads=threads, parallel=1, batch=sampling.batch)

        functions: dict[str, Callable[[], object]] = {
            "bare": bare,
            "engine": lambda: list(engine.sample(wanted, sampling, NO_GUIDANCE)),
            "without critic": lambda: list(engine.sample(wanted, sampling, NO_GUIDANCE, critic=False)),
            "files": files,  # opens the bundle too
        }
        before = engine.times()
        timings = measure(functions, warmups=1, repeats=repeats)
        stages = {
            name: {
                key: round(getattr(times, key) - (getattr(before[name], key) if name in before else 0), 3)
                for key in ("busy_s", "starved_s", "blocked_s")
            }
            for name, times in engine.times().items()
        }
    bare_s = timings["bare"].median_s
    ratios = {name: round(bare_s / timing.median_s, 3) for name, timing in timings.items() if name != "bare"}
    table = f"{sampling.solver}, {sampling.steps} steps"
    what = f"{size} px, batch {sampling.batch}, {table}, {threads} thread(s), {count} pairs"
    print(f"{what}: {ratios}")
    return {
        "what": what,
        "bare_loop_over_engine": ratios,
        "timings": [timing.as_dict() for timing in timings.values()],
        "stages_of_all_runs_in_memory": stages,
    }


def main() -> None:
    """Runs everything and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bundle", type=Path, help="[default: the reference bundle]")
    parser.add_argument("--json", type=Path, default=RESULT)
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    document: dict[str, Any] = {
        "what": "time of the bare step loop over that of the engine: 1 means that nothing but the steps costs time",
        "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "settings": [],
        "environment": environment("numpy", "onnxruntime", "opencv-python-headless"),
    }
    for threads in arguments.threads:
        for solver in ("euler-ancestral", "dpmpp-2m"):
            sampling = bundle.manifest.sampling.changed(solver=solver, steps=arguments.steps, batch=arguments.batch)
            sampling = replace(sampling, size_px=arguments.size)
            document["settings"].append(setting(bundle, threads, sampling, arguments.batches, arguments.repeats))
            write_json(arguments.json, document)  # what was measured is kept, whatever comes next
    print(json.dumps([entry["stages_of_all_runs_in_memory"] for entry in document["settings"]], indent=1))


if __name__ == "__main__":
    main()

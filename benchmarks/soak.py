"""A long run in one process: ``python -m benchmarks.soak``; writes ``benchmarks/results/soak.json``.

10,000 pairs of the tiny bundle (64 px, 4 steps), sampled, encoded and written into one set. After every 500 pairs:
seconds, resident memory, threads, open files. The set is verified before a number is printed.

Flat means, without the first block (warm-up): threads never change; open files change by no more than the encoding
threads, each of which may be writing one at that moment; and for the time of a block and for the memory, the change
over the whole run (slope of the least-squares line times the blocks) has a 95 % interval whose end nearest to zero is
below the tolerance of 5 % of the median block, and of 8 MiB. Time is processor seconds over those of a fixed piece of
the same kind of work (noise and PNGs, nothing kept), done ten times within the block: what else the machine does slows
both. Wall and processor seconds are recorded too.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from benchmarks.timer import environment, write_json
from benchmarks.tiny_bundle import write_tiny_bundle

from msdm_engine import Engine
from msdm_engine.output.job import set_header
from msdm_engine.output.pair_set import PairSet
from msdm_engine.output.png import png_bytes
from msdm_engine.output.sink import OutputChoice
from msdm_engine.output.verify import verify_set
from msdm_engine.output.workers import default_workers
from msdm_engine.requests.compose import compose
from msdm_engine.requests.request import GroupRequest, Layout, SetRequest
from msdm_engine.sampling.noise import gaussian
from msdm_engine.stage_clock import StageClocks

RESULT = Path(__file__).parent / "results" / "soak.json"
REFERENCE_PAIRS = 10
TIME_TOLERANCE, MEMORY_TOLERANCE_MIB = 0.05, 8.0


def state() -> dict[str, float]:
    """Memory, threads and open files of this process (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "resident_mib": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "python_threads": threading.active_count(),
        "open_files": len(os.listdir("/proc/self/fd")),
    }


def reference_work() -> float:
    """Processor seconds of this thread for noise and PNGs that leave nothing behind."""
    begin = time.thread_time()
    for index in range(REFERENCE_PAIRS):
        noise = gaussian(1, index, 0, 6, 64, 64)
        png_bytes(((noise[:3].transpose(1, 2, 0) + 4) * 31).clip(0, 255).astype(np.uint8))
    return time.thread_time() - begin


def run(folder: Path, pairs: int, block: int) -> tuple[list[dict[str, float]], StageClocks]:
    """Generates the set; what was seen after each block."""
    request = SetRequest((GroupRequest(Layout("round"), count=pairs, height_px=64, width_px=64, steps=4),), seed=1)
    blocks: list[dict[str, float]] = []
    clocks = StageClocks()
    with Engine.open(write_tiny_bundle(folder / "bundle"), threads=1, parallel=1) as engine:
        (group,) = compose(engine.bundle.manifest, request)
        header = set_header(engine, request, [group]) | {"output": OutputChoice().header({(64, 64)})}
        with PairSet(folder / "set", header, clocks=clocks) as out:
            wall, cpu, reference = time.perf_counter(), time.process_time(), 0.0
            for pair in engine.sample(group.pairs(), group.sampling, group.guidance):
                out.add(pair)
                if (pair.request.index + 1) % (block // 10) == 0:
                    reference += reference_work()
                if (pair.request.index + 1) % block == 0:
                    now = time.perf_counter(), time.process_time()
                    spent = now[1] - cpu - reference
                    times = {"wall_s": now[0] - wall, "cpu_s": spent, "reference_s": reference}
                    blocks.append({**times, "time": spent / reference, **state()})
                    wall, cpu, reference = *now, 0.0
                    click.echo(f"{pair.request.index + 1} pairs: {blocks[-1]}")
    found = verify_set(folder / "set")
    assert found.problems == () and found.whole == pairs, found.problems[:3]
    return blocks, clocks


def change(values: list[float]) -> dict[str, float]:
    """Change over the run by the least-squares line, with its 95 % interval (Student's t, n - 2 degrees)."""
    from scipy import stats

    line = stats.linregress(np.arange(len(values)), values)
    half = float(stats.t.ppf(0.975, len(values) - 2) * line.stderr)
    over = len(values) - 1
    return {
        name: float(v * over)
        for name, v in (("change", line.slope), ("low", line.slope - half), ("high", line.slope + half))
    }


def judge(blocks: list[dict[str, float]]) -> dict[str, Any]:
    """The rule of this module's docstring."""
    warm = blocks[1:]
    judged: dict[str, Any] = {}
    for name, tolerance in (
        ("time", TIME_TOLERANCE * float(np.median([b["time"] for b in warm]))),
        ("resident_mib", MEMORY_TOLERANCE_MIB),
    ):
        found = change([block[name] for block in warm])
        nearest = 0.0 if found["low"] <= 0 <= found["high"] else min(abs(found["low"]), abs(found["high"]))
        judged[name] = {**found, "tolerance": tolerance, "flat": nearest <= tolerance}
    for name, most in (("threads", 0), ("open_files", default_workers())):
        low, high = (pick(block[name] for block in warm) for pick in (min, max))
        judged[name] = {"lowest": low, "highest": high, "tolerance": most, "flat": high - low <= most}
    return judged


@click.command()
@click.option("--pairs", type=int, default=10_000, show_default=True)
@click.option("--block", type=int, default=500, show_default=True, help="pairs between two looks; at least 4 blocks")
@click.option("--out", type=click.Path(path_type=Path), default=RESULT, help="JSON file to write")
def main(pairs: int, block: int, out: Path) -> None:
    """Runs, verifies and judges; exits with 1 if anything is not flat."""
    if pairs < 4 * block or block < 10:
        raise click.UsageError("at least four blocks (a line with an interval takes three) of ten pairs")
    with tempfile.TemporaryDirectory() as folder:
        blocks, clocks = run(Path(folder), pairs, block)
    judged = judge(blocks)
    document = {
        "what": f"{pairs} pairs of the tiny bundle, 64 px, 4 steps, one process, one thread; {block} pairs a block",
        "rule": " ".join(str(__doc__).split("\n\n")[2].split()),
        "judged": judged,
        "stages": clocks.as_dict(),
        "blocks": blocks,
        "environment": environment("numpy", "onnxruntime", "opencv-python-headless"),
    }
    write_json(out, document)
    for name, entry in judged.items():
        click.echo(f"{name}: {entry}")
    if not all(entry["flat"] for entry in judged.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

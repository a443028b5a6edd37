"""Seeded fuzzer of everything untrusted: ``python -m benchmarks.fuzz --n 10000``; ``--replay SEED`` repeats one case.

Bundle manifest, bundle files, request files, masks and colour pictures are mutated; each case runs the engine on them,
to the end with a tiny bundle where they are accepted. Legal are success and an :class:`MsdmError`. Another exception, a
crash of the process, a case of more than ``--seconds``, memory beyond ``--gib`` and half an output are failures.

``--graphs`` more cases are graphs made to harm in a bundle whose hashes fit, which is more than an accident can do.
They reach ONNX Runtime, whose own crashes in native code the engine cannot turn into errors: these are counted and
kept apart, and do not fail the run.

Cases run in worker processes (:mod:`benchmarks.fuzz_worker`), so that a native crash is one case's and others go on.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
from benchmarks.fuzz_targets import OWN_TARGETS, Workspace, run_case, target_of
from benchmarks.fuzz_worker import NATIVE, Limits, run_chunk, work
from benchmarks.timer import environment, write_json

RESULT = Path(__file__).parent / "results" / "fuzz.json"


def run(first: int, n: int, only: str | None, limits: Limits) -> dict[str, Any]:
    """Runs cases and returns what a report says of them."""
    start = time.monotonic()
    found: list[dict[str, Any]] = []
    for begin in range(first, first + n, limits.chunk):
        found += run_chunk(begin, min(limits.chunk, first + n - begin), only, limits)
        failed = sum(line.get("outcome") == "failed" for line in found)
        click.echo(f"{sum('seed' in line for line in found)} cases, {failed} failed, {time.monotonic() - start:.0f} s")
    cases = [line for line in found if "seed" in line]
    outcomes: dict[str, Counter[str]] = {}
    for case in cases:
        outcomes.setdefault(case["target"], Counter())[case["outcome"]] += 1
    slowest = max(cases, key=lambda case: float(case["seconds"]))
    return {
        "cases": len(cases),
        "failures": [case for case in cases if case["outcome"] == "failed"],
        "outcomes": {target: dict(sorted(counts.items())) for target, counts in sorted(outcomes.items())},
        "slowest_case": {key: slowest[key] for key in ("seed", "target", "seconds")},
        "largest_memory_mib": max((line["peak_mib"] for line in found if "peak_mib" in line), default=None),
        "wall_seconds": round(time.monotonic() - start, 1),
    }


def replayed(seed: int, only: str | None) -> None:
    """Runs one case in this process; a failure shows its traceback."""
    with tempfile.TemporaryDirectory() as folder:
        name, *_ = target_of(seed, only)
        click.echo(f"{name}: {run_case(seed, Workspace.make(Path(folder) / 'work'), only)}")


@click.command()
@click.option("--n", default=10_000, show_default=True, help="cases")
@click.option("--graphs", default=0, show_default=True, help="further cases: graphs made to harm, whose hashes fit")
@click.option("--seed", default=0, show_default=True, help="the first case's; each has the next one's")
@click.option("--replay", type=int, help="run the one case of this seed here, with its traceback")
@click.option("--only", type=click.Choice(sorted(OWN_TARGETS)), help="with --replay: a case of --graphs")
@click.option("--json", "result", type=click.Path(path_type=Path), default=RESULT, show_default=False)
@click.option("--seconds", default=30.0, show_default=True, help="longest time of a case")
@click.option("--gib", default=3.0, show_default=True, help="address space of a worker beyond its own code")
@click.option("--chunk", default=500, show_default=True, help="cases of a worker")
@click.option("--worker", type=click.Path(path_type=Path), hidden=True)
def main(
    n: int,
    graphs: int,
    seed: int,
    replay: int | None,
    only: str | None,
    result: Path,
    seconds: float,
    gib: float,
    chunk: int,
    worker: Path | None,
) -> None:
    """Run the cases; exit 1 where one failed."""
    limits = Limits(seconds, gib, chunk)
    if worker is not None:
        work(seed, n, only, worker, limits)
        return
    if replay is not None:
        replayed(replay, only)
        return
    document: dict[str, Any] = {"command": f"python -m benchmarks.fuzz --n {n} --graphs {graphs} --seed {seed}"}
    document |= run(seed, n, None, limits)
    failures = list(document["failures"])
    if graphs:
        forged = document["graphs_made_to_harm"] = run(seed, graphs, "graph", limits)
        native = [case for case in forged["failures"] if case["error"].startswith(NATIVE)]
        failures += [case for case in forged["failures"] if case not in native]
        forged["crashes_of_onnx_runtime"] = len(native)
    document["limits"] = {"seconds_a_case": seconds, "gib_beyond_the_code": gib}
    document["environment"] = environment("numpy", "onnxruntime", "opencv-python-headless", "tokenizers", "pyyaml")
    write_json(result, document)
    for failure in failures:
        click.echo(f"seed {failure['seed']} ({failure['target']}): {failure['error']}\n{failure['trace']}")
    click.echo(json.dumps({key: document[key] for key in ("cases", "outcomes", "slowest_case")}, indent=1))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

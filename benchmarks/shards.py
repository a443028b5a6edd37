"""Sharded sets against sets of one run, to the byte: ``python -m benchmarks.shards``; writes
``benchmarks/results/shards.json``.

A set of the tiny bundle is made in one run; in three shards that are merged, in each format; and, where Ray is
installed, by an actor pool one of whose workers is killed (SIGKILL) in the middle of a shard. Every file of each is
compared with the one run's.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.timer import environment, write_json
from benchmarks.tiny_bundle import write_tiny_bundle

from msdm_engine.output.job import generate
from msdm_engine.output.merge import merge_shards
from msdm_engine.output.shard import Shard
from msdm_engine.output.sink import OutputChoice
from msdm_engine.requests.request import GroupRequest, Invent, Layout, SetRequest

RESULT = Path(__file__).parent / "results" / "shards.json"
SHARDS, PATIENCE_S = 3, 120
GROUPS = (
    GroupRequest(Layout("round"), count=41, height_px=64, width_px=64, steps=4),
    GroupRequest(Layout("columnar"), count=30, height_px=64, width_px=64, steps=4),
    GroupRequest(Invent(), count=25, height_px=64, width_px=64, steps=4),
)
REQUEST = SetRequest(GROUPS, seed=1)
CHOICES = [OutputChoice(), OutputChoice("webdataset", tar_pairs=10), OutputChoice("zarr", chunk_pairs=10)]


def tree(folder: Path) -> dict[str, bytes]:
    """Contents by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def compare(folder: Path, whole: Path) -> dict[str, int]:
    """Files of both, and of them those whose bytes differ or that one lacks."""
    found, wanted = tree(folder), tree(whole)
    names = found.keys() | wanted.keys()
    return {"files": len(names), "files_that_differ": sum(found.get(name) != wanted.get(name) for name in names)}


def writer_of(parts: Path) -> int | None:
    """The process that is in the middle of a shard: it holds the shard's header open, and has written a pair."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = Path(os.readlink(link))
        except OSError:  # gone, or not ours
            continue
        if target.name == "set.json" and target.is_relative_to(parts) and any((target.parent / "masks").glob("*.png")):
            return int(link.parts[2])
    return None


def by_ray(folder: Path, bundle: Path) -> tuple[int, float]:
    """The set by two workers of a local Ray; how many were killed, and the seconds it took."""
    from msdm_engine.scale.ray_job import RayJob, run_ray

    parts = folder / "parts"
    killed: list[int] = []

    def kill() -> None:
        end = time.monotonic() + PATIENCE_S
        while not killed and time.monotonic() < end:
            worker = writer_of(parts)
            if worker is not None:
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
            time.sleep(0.005)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    began = time.monotonic()
    run_ray(RayJob(REQUEST, parts, bundle=bundle, workers=2, shards=6), folder / "ray")
    killer.join()
    return len(killed), time.monotonic() - began


def main() -> None:
    """Makes and compares everything; an assertion fails before anything is written if a byte differs."""
    sets: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = write_tiny_bundle(folder / "bundle")
        for choice in CHOICES:
            if choice.format == "zarr" and not find_spec("zarr"):
                sets["zarr"] = "not run: zarr is not installed"
                continue
            whole = folder / f"{choice.format}-whole"
            generate(REQUEST, whole, bundle=bundle, threads=1, output=choice)
            parts = [folder / f"{choice.format}-{i}" for i in range(SHARDS)]
            for i, part in enumerate(parts):
                generate(REQUEST, part, bundle=bundle, threads=1, output=choice, shard=Shard(i, SHARDS))
            merge_shards(parts, folder / f"{choice.format}-merged")
            sets[f"{choice.format}, {SHARDS} shards merged"] = compare(folder / f"{choice.format}-merged", whole)
        if find_spec("ray"):
            killed, seconds = by_ray(folder, bundle)
            assert killed == 1, "no worker was caught in the middle of a shard"
            told = {"workers": 2, "shards": 6, "workers_killed": killed, "seconds": round(seconds, 1)}
            sets["folder, Ray Data"] = {**compare(folder / "ray", folder / "folder-whole"), **told}
        else:
            sets["folder, Ray Data"] = "not run: ray is not installed"
    assert all(entry["files_that_differ"] == 0 for entry in sets.values() if isinstance(entry, dict)), sets
    document = {
        "what": f"{sum(g.count or 0 for g in GROUPS)} pairs of the tiny bundle in {len(GROUPS)} groups, 64 px, 4 steps",
        "sets": sets,
        "environment": environment("numpy", "onnxruntime", "opencv-python-headless"),
    }
    write_json(RESULT, document)
    print(json.dumps(sets, indent=1))


if __name__ == "__main__":
    main()

"""``docs/peers.md``: the tables of :mod:`benchmarks.peers`, written from its JSON and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Largest mean difference of the same pictures from PyTorch's in float32, of 255: a step of uint8. What makes others is
#: timed, and is no peer in the ratio.
SAME_PICTURES = 1.0

HEAD = """# This engine and its peers

Written by `python -m benchmarks.peers` from [peers.json](../benchmarks/results/peers.json); do not edit. Same weights,
requests, noise, steps and machine; conditions, rounding and PNG files are the same code for all. Medians of interleaved
runs. A ratio above 1 says how many times longer than the engine's fastest configuration in that column a peer takes.
"""

QUANTISED = """
INT8 is the engine's with the graphs of `msdm-calibrate quantize` ([calibration.md](calibration.md)), and the peer's
with ONNX Runtime's own static quantisation of the one graph, calibrated on the trajectory that is timed. It counts at
any precision, and in neither of the other two."""

SAME = """
A peer is in the ratio if its pictures differ from PyTorch's float32 pictures by one of 255 levels on average at most;
times of others stand in the table, in italics. With those in the ratio too it would be **{ratio:.2f}**. Mean
difference, over the cells: {differences}."""


def write_page(path: Path, document: dict[str, Any]) -> None:
    """Writes the page."""
    machine = document["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [HEAD, f"{machine['cpu_count']} cores, {machine['machine']}; {versions}.", ""]
    if "speedup_over_fastest_peer" in document:
        lines += [
            "Smallest ratio of the fastest peer without our split graphs to the engine, 128 px, batch 1 and 4, 8 and "
            f"20 steps, end to end: **{document['speedup_over_fastest_peer']:.2f}** at any precision, "
            f"{document['speedup_at_float32']:.2f} within float32, {document['speedup_at_half']:.2f} within bfloat16."
            + (QUANTISED if document.get("quantised") else ""),
            SAME.format(ratio=document["speedup_whatever_it_made"], differences=differences(document["sets"])),
            "",
        ]
    lines += ["## Requests to files, ms a pair", "", *table(document["sets"])]
    lines += ["", "## One step, ms a pair", ""]
    lines += (
        table(document["steps"]) if document["steps"] else ["Not measured yet: `python -m benchmarks.peers` goes on."]
    )
    lines += ["", "`torch.compile` is timed in the cells of the ratio above only: it compiles for a minute each.", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def differences(cells: dict[str, Any]) -> str:
    """Smallest and largest mean difference of what does not compute in float32."""
    found: dict[str, list[float]] = {}
    for cell in cells.values():
        for peer in cell["peers"]:
            if peer["precision"] != "float32":
                found.setdefault(peer["name"], []).append(peer["mean_difference"])
    return "; ".join(f"{name} {min(values):.2f} to {max(values):.2f}" for name, values in found.items())


def table(cells: dict[str, Any]) -> Iterator[str]:
    """A row for each peer, a column for each cell."""
    names = list(dict.fromkeys(peer["name"] for cell in cells.values() for peer in cell["peers"]))
    columns = [name.replace(", 1 steps", "").replace(" px, batch ", " px x ") for name in cells]
    yield f"| | {' | '.join(columns)} |"
    yield f"|---|{'---:|' * len(cells)}"
    for name in names:
        shown = []
        for cell in cells.values():
            found = {peer["name"]: peer for peer in cell["peers"]}
            ours = [peer["seconds_per_pair"] for peer in cell["peers"] if peer["engine"]]
            if name not in found:
                shown.append("-")
                continue
            seconds = found[name]["seconds_per_pair"]
            told = f"{seconds * 1e3:.0f}" + (f" ({seconds / min(ours):.2f})" if ours else "")
            shown.append(told if found[name].get("mean_difference", 0) <= SAME_PICTURES else f"*{told}*")
        yield f"| {name} | {' | '.join(shown)} |"

"""This engine against what a user could take instead: ``python -m benchmarks.peers``.

Same weights, requests, noise, steps and machine; conditions, rounding and files are the same code for all
(:mod:`benchmarks.peer_sets`). Two kinds of cells, all peers interleaved in each: *set*, requests to PNG files, and
*step*, one evaluation of the network at a size and batch. Each peer's pictures are compared with PyTorch's float32
before a number is taken. Cells are written as they are finished, and a run goes on where the last one stopped.

Writes ``benchmarks/results/peers.json`` (``speedup_over_fastest_peer``: see :func:`headline`) and ``docs/peers.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.peer_int8 import OpenVinoWholeInt8
from benchmarks.peer_networks import (
    CORES,
    Arrays,
    Diffusers,
    OnnxWhole,
    OpenVinoSplit,
    OpenVinoWhole,
    Peer,
    Torch,
    model_of,
    whole_onnx,
)
from benchmarks.peer_page import SAME_PICTURES, write_page
from benchmarks.peer_sets import conditions_of, pairs_of_engine, pairs_of_peer, start_of, to_files
from benchmarks.sample import requests
from benchmarks.timer import environment, measure, write_json

from msdm_engine import Bundle, Engine, Pair
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.contract import FLOAT32

RESULT = Path(__file__).parent / "results" / "peers.json"
PAGE = Path(__file__).parents[1] / "docs" / "peers.md"
#: The precision of graphs that ``msdm-calibrate quantize`` makes.
INT8 = "int8"
#: Deterministic, so that every peer must arrive at the same pictures.
SOLVER = "euler"
#: Cells as (size in px, batch, steps); of a set and of a step. A set's steps are 2, 8 and 20 where that is affordable.
SETS = (
    *((128, batch, steps) for batch in (1, 4) for steps in (2, 8, 20)),
    (128, 16, 2), (128, 16, 8), (256, 1, 2), (256, 1, 8), (256, 4, 2), (512, 1, 2),
)  # fmt: skip
STEPS = tuple((size, batch, 1) for size in (128, 256, 512) for batch in (1, 4, 16))
#: Cells that the headline is about.
HEADLINE = tuple((128, batch, steps) for batch in (1, 4) for steps in (8, 20))
#: Engine configurations: name -> (backend, precision of its arithmetic). INT8 is measured with ``--quantised`` only.
ENGINES = {
    "msdm, ONNX Runtime, float32": ("onnxruntime", "float32"),
    "msdm, OpenVINO, float32": ("openvino", "float32"),
    "msdm, OpenVINO, bfloat16": ("openvino:CPU,inference_precision=bf16", "half"),
    "msdm, OpenVINO, INT8 and bfloat16": ("openvino:CPU,inference_precision=bf16", INT8),
}
#: Largest mean difference from PyTorch's float32 pictures, of 255, of what computes the same thing: float32 sums in
#: another order stay far below a rounding of uint8; bfloat16 and INT8 have 8 bits, and their error grows along the
#: trajectory.
MEAN_DIFFERENCE = {"float32": 0.05, "half": 6.0, INT8: 6.0}

PairsOf = Callable[[], Iterator[Pair]]


def peers_of(
    bundle: Bundle, conditions: Arrays, x: np.ndarray, compiled: bool, table: np.ndarray | None = None
) -> list[Peer]:
    """All peers, those with one graph made for these shapes; with the table of a trajectory, one in INT8 for it too."""
    model = model_of(bundle)
    graph = whole_onnx(model, conditions, x)
    return [
        Torch(model),
        Torch(model, half=True),
        *([Torch(model, compiled=True)] if compiled else []),
        Diffusers(model),
        OnnxWhole(graph),
        OpenVinoWhole(graph, "f32"),
        OpenVinoWhole(graph, "bf16"),
        OpenVinoSplit(bundle, "f32"),
        OpenVinoSplit(bundle, "bf16"),
        *([] if table is None else [OpenVinoWholeInt8(graph, conditions, np.float32(table[0, 0]) * x, table)]),
    ]


def described(name: str, precision: str, split: bool, engine: bool) -> dict[str, Any]:
    """What the tables need to know of a peer."""
    return {"name": name, "precision": precision, "split": split, "engine": engine}


def set_cell(
    bundle: Bundle, size_px: int, batch: int, steps: int, *, quantised: Bundle | None, compiled: bool, repeats: int
) -> dict[str, Any]:
    """Requests to files."""
    sampling = bundle.manifest.sampling.changed(solver=SOLVER, steps=steps, batch=batch)
    wanted = requests(bundle, size_px, batch * (4 if batch < 4 else 2))
    tokenizer = TextTokenizer(bundle.tokenizer, bundle.manifest.text_tokens)
    x = start_of(wanted[:batch], bundle.manifest.state_channels, 1.0)
    table = None if quantised is None else sampling.table()
    peers = peers_of(bundle, conditions_of(wanted[:batch], tokenizer), x, compiled, table)
    pairs: dict[str, PairsOf] = {peer.name: partial(pairs_of_peer, peer, bundle, wanted, sampling) for peer in peers}
    told = {peer.name: described(peer.name, peer.precision, peer.split, False) for peer in peers}
    with ExitStack() as opened:
        for name, (backend, precision) in ENGINES.items():
            given = quantised if precision == INT8 else bundle
            if given is None:
                continue
            engine = opened.enter_context(
                Engine.open(given, backend=backend, precision=INT8 if precision == INT8 else FLOAT32)
            )
            pairs[name] = partial(pairs_of_engine, engine, wanted, sampling)
            told[name] = described(name, precision, True, True)
        checked(pairs, told)  # and warms everything up
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="msdm-peers-")))
        timed = {name: partial(to_files, make, wanted, scratch) for name, make in pairs.items()}
        timings = measure(timed, warmups=1, repeats=repeats)
    for name, timing in timings.items():
        told[name] |= {**timing.as_dict(), "seconds_per_pair": timing.median_s / len(wanted)}
    return {"pairs": len(wanted), "peers": list(told.values())}


def checked(pairs: dict[str, PairsOf], told: dict[str, dict[str, Any]]) -> None:
    """Each peer's pictures against the first's, PyTorch eager float32; notes the differences."""
    reference = np.stack([pair.image for pair in next(iter(pairs.values()))()]).astype(int)
    assert reference.std() > 1, "the pictures are blank"
    for name, make in pairs.items():
        difference = np.abs(np.stack([pair.image for pair in make()]).astype(int) - reference)
        told[name] |= {"largest_difference": int(difference.max()), "mean_difference": float(difference.mean())}
        assert difference.mean() <= MEAN_DIFFERENCE[told[name]["precision"]], f"{name} made other pictures"


def step_cell(bundle: Bundle, size_px: int, batch: int, repeats: int) -> dict[str, Any]:
    """One evaluation of the network; what a tool computes once for a batch is not in it."""
    wanted = requests(bundle, size_px, batch)
    conditions = conditions_of(wanted, TextTokenizer(bundle.tokenizer, bundle.manifest.text_tokens))
    x = start_of(wanted, bundle.manifest.state_channels, 1.0)
    peers = [p for p in peers_of(bundle, conditions, x, False) if not isinstance(p, Diffusers)]
    prepared = {peer.name: peer.prepare(conditions) for peer in peers}
    told = {peer.name: described(peer.name, peer.precision, peer.split, False) for peer in peers}
    reference = peers[0].denoise(x, 1.0, prepared[peers[0].name])
    for peer in peers:
        found = peer.denoise(x, 1.0, prepared[peer.name])
        error = float(np.linalg.norm(found - reference) / np.linalg.norm(reference))
        assert error < (1e-4 if peer.precision == "float32" else 0.1), f"{peer.name} computed something else"
        told[peer.name]["relative_error"] = error
    functions = {peer.name: partial(peer.denoise, x, 1.0, prepared[peer.name]) for peer in peers}
    for name, timing in measure(functions, warmups=1, repeats=repeats).items():
        told[name] |= {**timing.as_dict(), "seconds_per_pair": timing.median_s / batch}
    return {"peers": list(told.values())}


def headline(sets: dict[str, Any]) -> dict[str, Any]:
    """The engine's fastest configuration against the fastest peer that does not run our split graphs.

    The smallest ratio over :data:`HEADLINE`, at any precision (``speedup_over_fastest_peer``; INT8, of the engine and
    of a peer, counts here) and within float32 and half, each among those that make the same pictures; and among all.
    """
    smallest: dict[str, float] = {}
    for cell in HEADLINE:
        if key(cell) not in sets:
            return {}
        peers = sets[key(cell)]["peers"]
        same = [p for p in peers if p["mean_difference"] <= SAME_PICTURES]
        within = {kind: [p for p in same if p["precision"] == kind] for kind in ("float32", "half")}
        for precision, allowed in {"any": same, **within, "whatever": peers}.items():
            ours = min(p["median_s"] for p in allowed if p["engine"])
            theirs = min(p["median_s"] for p in allowed if not p["split"])
            smallest[precision] = min(smallest.get(precision, np.inf), theirs / ours)
    return {
        "speedup_over_fastest_peer": smallest["any"],
        "speedup_at_float32": smallest["float32"],
        "speedup_at_half": smallest["half"],
        "speedup_whatever_it_made": smallest["whatever"],
    }


def key(cell: tuple[int, int, int]) -> str:
    """A cell's name in the JSON."""
    return "{} px, batch {}, {} steps".format(*cell)


def main() -> None:
    """Measures what is not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="begin anew, and forget cells that are there")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="cells whose name contains this")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument(
        "--quantised", type=Path, help="the same weights with INT8 graphs: the engine is timed there too"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(CORES)
    bundle = Bundle.open(options.bundle)
    quantised = Bundle.open(options.quantised) if options.quantised else None
    document: dict[str, Any] = {
        "what": f"seconds of a whole set, requests to PNG files ({SOLVER}, no guidance), and of one step",
        "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "quantised": quantised.sha256 if quantised else None,
        "environment": environment("torch", "onnxruntime", "openvino", "diffusers", "numpy"),
        "sets": {},
        "steps": {},
    }
    if options.out.exists() and not options.fresh:
        before = json.loads(options.out.read_text())
        if any(before.get(key) != document[key] for key in ("bundle", "quantised")):
            raise SystemExit(f"{options.out} is of another bundle: --fresh begins anew")
        document |= {"sets": before["sets"], "steps": before["steps"]}
    for kind, cells in (("sets", SETS), ("steps", STEPS)):
        for cell in cells:
            if key(cell) in document[kind] or options.only not in f"{kind}: {key(cell)}":
                continue
            large = cell[0] ** 2 * cell[1] > 16 * 128**2
            repeats = min(options.repeats, 3) if large else options.repeats
            compiled = cell in HEADLINE
            document[kind][key(cell)] = (
                set_cell(bundle, *cell, quantised=quantised, compiled=compiled, repeats=repeats)
                if kind == "sets"
                else step_cell(bundle, *cell[:2], repeats)
            )
            document |= headline(document["sets"])
            write_json(options.out, document)
            print(f"{kind}: {key(cell)} done", flush=True)
    if options.out == RESULT:
        write_page(PAGE, document)


if __name__ == "__main__":
    main()

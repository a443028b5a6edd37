"""Measuring ranges: batch by batch along real trajectories, resumable after each batch.

The marked graphs give out every activation of a batch, and NumPy reduces them at once: each pass over them is one
vectorised call over blocks that fit the cache. Reductions added to the graph would read the same memory, and ONNX has
no histogram. Memory is one batch's activations (164 MB for each 128 px pair of the reference bundle, 41 million values)
and the histograms.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from tqdm import tqdm

from msdm_calibration.data import CalibrationData
from msdm_calibration.marked import Activation, activations_of, load_graph, with_outputs
from msdm_calibration.ranges.document import RangeReport, activation_ranges
from msdm_calibration.ranges.settings import RangeSettings
from msdm_calibration.ranges.state import load_state, remove_state, save_state
from msdm_calibration.ranges.statistics import GraphStatistics, channel_axis
from msdm_calibration.trajectory import Sessions, Visit, batches, follow
from msdm_engine.bundle.manifest import Sampling
from msdm_engine.bundle.reader import Bundle
from msdm_engine.conditions.colour import Colour
from msdm_engine.conditions.metadata import Metadata, TextTokenizer
from msdm_engine.contract import DENOISER
from msdm_engine.errors import OutputError
from msdm_engine.output.png import write_atomically
from msdm_engine.pairs import PairRequest
from msdm_engine.requests.condition_ranges import condition_values, ranges_of

REPORT = "ranges.json"


@dataclass(frozen=True)
class Marked:
    """A graph with its activations as outputs.

    Args:
        activations: all of them.
        measured: those with values of their own, and rearranged ones that a convolution or matrix product reads,
            whose channels are counted as they are read.
        model: serialised, with what is measured among its outputs.
    """

    activations: tuple[Activation, ...]
    measured: tuple[Activation, ...]
    model: bytes

    @staticmethod
    def of(data: bytes) -> Marked:
        """Marks a bundle's graph."""
        model = load_graph(data)
        activations = activations_of(model)
        measured = tuple(a for a in activations if not a.same_values_as or channel_axis(a) is not None)
        marked = with_outputs(model, [a.tensor for a in measured if a.node])
        return Marked(activations, measured, marked.SerializeToString())


def measure(settings: RangeSettings, *, bar: bool = False, say: Callable[[str], None] = lambda _: None) -> RangeReport:
    """Measures a bundle's ranges and writes ``ranges.json`` into the folder ``settings.out``.

    Interrupted, it goes on after the last batch and ends with the same bytes. A finished report of the same run is
    read instead.

    Args:
        bar: show a progress bar with the time left.

    Raises:
        MsdmError: of bundle, data and engine; an OutputError where the folder holds another run.
    """
    bundle = Bundle.open(settings.bundle)
    with CalibrationData(settings.data, bundle.manifest.n_classes) as data:
        windows = data.windows(settings.windows, settings.size_px, settings.seed, settings.splits)
        named = {"name": data.name, "licence": data.licence}
    real = [window.request for window in windows]
    requests = [*real, *_bare(real, settings.bare)]
    sampling = bundle.manifest.sampling.changed(steps=settings.steps)
    run = _run(settings, bundle, named, requests, sampling)
    path = settings.out / REPORT
    if path.exists():
        report = RangeReport.read(path)
        _check_same(settings, report.run, run)
        say(f"{path} is of this run")
        return report
    graphs = {name: Marked.of(data) for name, data in bundle.graphs.items()}
    table = sampling.table()
    levels = {name: len(table) if name == DENOISER else 1 for name in graphs}
    seen = {name: GraphStatistics(graph.measured, levels[name]) for name, graph in graphs.items()}
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{settings.out} cannot be written: {error.strerror or error}") from error
    _walk(settings, bundle, sampling, requests, graphs, seen, run, bar)
    sigmas = {name: [float(np.float32(row[0])) for row in table] if name == DENOISER else [None] for name in graphs}
    tokenizer = TextTokenizer(bundle.tokenizer, bundle.manifest.text_tokens)
    report = RangeReport(
        run,
        {name: activation_ranges(graph.activations, seen[name], sigmas[name]) for name, graph in graphs.items()},
        ranges_of(condition_values(request, tokenizer) for request in requests),
    )
    write_atomically(path, report.to_json().encode())
    remove_state(settings.out)
    return RangeReport.read(path)


def _bare(real: Sequence[PairRequest], count: int) -> list[PairRequest]:
    """Requests without a condition, with noise of their own."""
    return [
        replace(
            real[0], index=len(real) + i, instances=None, classes=None, colour=Colour(), metadata=Metadata(),
            morphology="invented",
        )
        for i in range(count)
    ]  # fmt: skip


def _walk(
    settings: RangeSettings,
    bundle: Bundle,
    sampling: Sampling,
    requests: Sequence[PairRequest],
    graphs: dict[str, Marked],
    seen: dict[str, GraphStatistics],
    run: dict[str, Any],
    bar: bool,
) -> None:
    done, found = load_state(settings.out)
    if found is not None:
        _check_same(settings, found, run)
        done = load_state(settings.out, seen)[0]
    sessions = Sessions({name: graph.model for name, graph in graphs.items()}, threads=settings.threads)
    groups = list(batches(requests, settings.batch))
    with tqdm(
        total=len(groups) * sampling.steps, initial=done * sampling.steps, unit="step", disable=not bar
    ) as progress:

        def see(visit: Visit) -> None:
            level = visit.step or 0
            seen[visit.graph].add(level, {**visit.inputs, **visit.outputs, **visit.more})
            progress.update(visit.graph == DENOISER)

        for number, group in enumerate(groups[done:], start=done + 1):
            follow(bundle, sessions, group, see, sampling)
            save_state(settings.out, run, number, seen)


def _run(
    settings: RangeSettings, bundle: Bundle, data: dict[str, str], requests: Sequence[PairRequest], sampling: Sampling
) -> dict[str, Any]:
    """Everything that decides the numbers."""
    manifest = bundle.manifest
    digest = hashlib.sha256()
    for request in requests:
        told = {"colour": asdict(request.colour), "text": request.metadata.text(), "index": request.index}
        digest.update(json.dumps(told, sort_keys=True).encode() + b"\0")
        digest.update(b"" if request.instances is None else request.instances.astype("<u2").tobytes())
        digest.update(json.dumps(sorted((request.classes or {}).items())).encode())
    return {
        "bundle": manifest.name,
        "graphs": {name: manifest.files[spec.file].sha256 for name, spec in manifest.graphs.items()},
        "outputs": {name: [tensor.name for tensor in spec.outputs] for name, spec in manifest.graphs.items()},
        "data": data,
        "windows": settings.windows,
        "bare": settings.bare,
        "size_px": settings.size_px,
        "seed": settings.seed,
        "splits": list(settings.splits),
        "conditions_sha256": digest.hexdigest(),
        "sampling": {key: value for key, value in asdict(sampling).items() if key not in ("size_px", "batch")},
        "guidance": manifest.guidance.to_json(),
        "batch": settings.batch,
        "threads": settings.threads,
        "tools": {tool: version(tool) for tool in ("msdm", "numpy", "onnx", "onnxruntime")},
    }


def _check_same(settings: RangeSettings, found: dict[str, Any], run: dict[str, Any]) -> None:
    """Refuses to mix two runs."""
    other = sorted(key for key in {*found, *run} if found.get(key) != run.get(key))
    if other:
        shown = ", ".join(f"{key} {json.dumps(found.get(key))[:80]}" for key in other)
        raise OutputError(
            f"{settings.out} holds another measurement",
            note=f"it differs in {shown}",
            hint="choose another --out, or remove the folder",
        )

"""A whole set: request, bundle and output brought together."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from msdm_engine.bundle import Bundle
from msdm_engine.compose import ComposedGroup, compose
from msdm_engine.engine import Engine, Padding
from msdm_engine.errors import RequestError
from msdm_engine.output import NOTICE, SHEET_FILE, PairSet
from msdm_engine.request import SetRequest


@dataclass(frozen=True)
class Log:
    """Where messages go: readable or JSON lines on standard error, the summary on standard output.

    Args:
        quiet: only errors.
        verbose: also what is being done.
        as_json: every message as one JSON object a line.
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False

    def detail(self, event: str, **values: Any) -> None:
        """Something that only ``verbose`` shows."""
        if self.verbose or self.as_json:
            self._emit(event, values, sys.stderr)

    def summary(self, event: str, text: str, **values: Any) -> None:
        """The line at the end."""
        if self.as_json:
            self._emit(event, values, sys.stderr)
        elif not self.quiet:
            print(text)

    def _emit(self, event: str, values: dict[str, Any], stream: Any) -> None:
        if self.as_json:
            print(json.dumps({"event": event, **values}), file=stream, flush=True)
        else:
            print(" ".join([event, *(f"{key}={value}" for key, value in values.items())]), file=stream, flush=True)

    @property
    def bar(self) -> bool:
        """Whether a progress bar is shown."""
        return not (self.quiet or self.as_json)


def generate(
    request: SetRequest,
    out: Path | None,
    *,
    bundle: Path | None = None,
    backend: str = "onnxruntime",
    threads: int = 0,
    batch: int | None = None,
    resume: bool = False,
    log: Log | None = None,
) -> int:
    """Generates a set into a folder.

    Everything that can be checked is checked before the folder is made. Interrupted by Ctrl-C or an error, the
    pairs that are finished stay, whole, and ``resume`` completes the set to the same bytes.

    Returns:
        the number of pairs written by this call.

    Raises:
        MsdmError: see the classes of :mod:`msdm_engine.errors`.
    """
    log = log or Log(quiet=True)
    if out is None:
        raise RequestError("no output folder", hint="give --out FOLDER")
    began = time.monotonic()
    opened = Bundle.open(bundle)
    groups = compose(opened.manifest, request, batch)
    total = sum(group.count for group in groups)
    with Engine.open(opened, backend=backend, threads=threads) as engine:
        header = set_header(engine, request, groups)
        log.detail("opened", bundle=opened.sha256, pairs=total, **engine.backend.identity)
        with PairSet(out, header, resume=resume) as pairs:
            if pairs.done:
                log.detail("resuming", done=len(pairs.done))
            with tqdm(total=total, initial=len(pairs.done), unit="pair", disable=not log.bar) as bar:
                for group in groups:
                    for pair in engine.sample(group.pairs(pairs.done), group.sampling, group.guidance):
                        pairs.add(pair)
                        bar.update()
                        log.detail("pair", index=pair.request.index)
    seconds = time.monotonic() - began
    rate = pairs.written / seconds
    text = f"{pairs.written} pairs in {seconds:.1f} s ({rate:.2f} pairs/s): {out}\nlook at {out / SHEET_FILE}"
    log.summary(
        "done", text, pairs=pairs.written, seconds=round(seconds, 2), pairs_per_second=round(rate, 3), out=str(out)
    )
    return pairs.written


def set_header(engine: Engine, request: SetRequest, groups: list[ComposedGroup]) -> dict[str, Any]:
    """``set.json``: everything that decides the bytes of the set, and where it comes from."""
    manifest = engine.bundle.manifest
    licence = manifest.data["licence"]
    return {
        "notice": NOTICE,
        "pairs": sum(group.count for group in groups),
        "bundle": {"name": manifest.name, "sha256": engine.bundle.sha256},
        "data": {key: manifest.data[key] for key in ("name", "licence", "source")},
        "engine": {"msdm": version("msdm"), **engine.backend.identity},
        "request": request.to_json(),
        "request_sha256": request.sha256(),
        "groups": [
            {"first": group.first, "count": group.count, "preset": group.preset, "sampling": asdict(group.sampling)}
            for group in groups
        ],
        "provenance": {
            "Software": f"msdm {version('msdm')}",
            "Comment": NOTICE,
            "Bundle": f"{manifest.name} sha256:{engine.bundle.sha256}",
            "Request": f"sha256:{request.sha256()}",
            "Data licence": licence,
        },
    }


def describe(request: SetRequest, bundle: Path | None, batch: int | None) -> str:
    """What a request would make and what it costs, after the same checks as :func:`generate`; makes nothing."""
    opened = Bundle.open(bundle)
    groups = compose(opened.manifest, request, batch)
    lines, runs = [], 0.0
    for number, group in enumerate(groups):
        branches = len(group.guidance.branches())
        for (height, width), count in group.sizes.items():
            padding = Padding.of(height, width, opened.manifest.stride)
            guided = sum(group.guidance.acts_at(float(sigma)) for sigma in group.sampling.table()[:, 0])
            steps = group.sampling.steps + guided * (branches - 1)
            runs += count * steps * padding.shape[0] * padding.shape[1] / 1e6
            lines.append(
                f"group {number}: {count} pair(s) of {height} x {width} px, {group.preset or 'no preset'}, "
                f"{group.sampling.solver}, {group.sampling.steps} steps, {branches} guidance branch(es), "
                f"batch {group.sampling.batch}, about {_tensor_mib(opened, padding, group):.0f} MiB of tensors"
            )
    lines.append(f"{sum(group.count for group in groups)} pairs, cost {runs:.1f} megapixel-steps; nothing was written")
    return "\n".join(lines)


def _tensor_mib(bundle: Bundle, padding: Padding, group: ComposedGroup) -> float:
    """Inputs and outputs of the denoiser for one batch in MiB; the runtime's own workspace comes on top."""
    height, width = padding.shape
    batch, branches = group.sampling.batch, len(group.guidance.branches())
    known = {"batch": batch, "branches": branches, "samples": batch * branches}
    stride = bundle.manifest.stride
    total = 0
    for tensor in (*bundle.manifest.graphs["denoiser"].inputs, *bundle.manifest.graphs["denoiser"].outputs):
        size = 4
        for dimension in tensor.shape:
            size *= _extent(dimension, known, height // stride, width // stride)
        total += size
    return total / 2**20


def _extent(dimension: int | str, known: dict[str, int], rows: int, columns: int) -> int:
    """A dimension as the exporter writes it: a number, a name, or ``4*rows``."""
    if isinstance(dimension, int):
        return dimension
    factor, _, name = dimension.rpartition("*")
    return (int(factor) if factor else 1) * {**known, "rows": rows, "columns": columns}[name]

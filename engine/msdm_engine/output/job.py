"""A whole set: request, bundle and output brought together."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from msdm_engine.bundle import Bundle
from msdm_engine.compose import ComposedGroup, compose
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.contract import FLOAT32
from msdm_engine.engine import Engine
from msdm_engine.errors import RequestError
from msdm_engine.log import Log
from msdm_engine.output.pair_set import NOTICE, SHEET_FILE, PairSet
from msdm_engine.pairs import Pair
from msdm_engine.range_check import RangeCheck
from msdm_engine.redraw import Redrawn, check_critic_is_asked, sample_accepted
from msdm_engine.request import SetRequest


def generate(
    request: SetRequest,
    out: Path | None,
    *,
    bundle: Path | None = None,
    backend: str = "onnxruntime",
    threads: int = 0,
    precision: str = FLOAT32,
    batch: int | None = None,
    critic: bool = True,
    resume: bool = False,
    check_ranges: bool = False,
    log: Log | None = None,
) -> int:
    """Generates a set into a folder.

    Everything that can be checked is checked before the folder is made. Interrupted by Ctrl-C or an error, the
    pairs that are finished stay, whole, and ``resume`` completes the set to the same bytes.

    Args:
        critic: score each pair with the bundle's critic, if it has one.
        check_ranges: warn of pairs outside the bundle's calibrated ranges, and say so in their records.

    Returns:
        the number of pairs written by this call.

    Raises:
        MsdmError: see the classes of :mod:`msdm_engine.errors`.
    """
    log = log or Log(quiet=True)
    if out is None:
        raise RequestError("no output folder", hint="give --out FOLDER")
    check_critic_is_asked(request, critic)
    began = time.monotonic()
    opened = Bundle.open(bundle)
    groups = compose(opened.manifest, request, batch)
    total = sum(group.count for group in groups)
    with Engine.open(opened, backend=backend, threads=threads, precision=precision) as engine:
        check_texts(engine.tokenizer, groups)
        header = set_header(engine, request, groups, critic) | ({"check_ranges": True} if check_ranges else {})
        check = RangeCheck.logged(engine, log) if check_ranges else None
        log.detail("opened", bundle=opened.sha256, pairs=total, **engine.backend.identity)
        for number, group in enumerate(groups):
            if group.findings.text():
                log.detail("masks", group=number, **asdict(group.findings))
        redrawn = Redrawn()
        with PairSet(out, header, resume=resume) as pairs:
            if pairs.done:
                log.detail("resuming", done=len(pairs.done))
            with tqdm(total=total, initial=len(pairs.done), unit="pair", disable=not log.bar) as bar:
                for group in groups:
                    for pair in _sampled(engine, group, pairs.done, critic, check):
                        pairs.add(check.marked(pair) if check else pair)
                        redrawn.count(pair)
                        bar.update()
                        log.detail("pair", index=pair.request.index)
    seconds = time.monotonic() - began
    rate = pairs.written / seconds
    text = f"{pairs.written} pairs in {seconds:.1f} s ({rate:.2f} pairs/s), look at {out / SHEET_FILE}"
    values = {"pairs": pairs.written, "seconds": round(seconds, 2), "pairs_per_second": round(rate, 3), "out": str(out)}
    if any(group.acceptance for group in groups):
        text, values = f"{text}\n{redrawn.text()}", values | asdict(redrawn)
    log.summary("done", text, **values)
    return pairs.written


def _sampled(
    engine: Engine, group: ComposedGroup, done: Collection[int], critic: bool, check: RangeCheck | None
) -> Iterator[Pair]:
    wanted = check.seen(group.pairs(done)) if check else group.pairs(done)
    if group.acceptance is None:
        return engine.sample(wanted, group.sampling, group.guidance, critic=critic)
    return sample_accepted(engine, wanted, group.acceptance, group.sampling, group.guidance)


def set_header(engine: Engine, request: SetRequest, groups: list[ComposedGroup], critic: bool = True) -> dict[str, Any]:
    """``set.json``: everything that decides the bytes of the set, and where it comes from."""
    manifest = engine.bundle.manifest
    licence = manifest.data["licence"]
    return {
        "notice": NOTICE,
        "pairs": sum(group.count for group in groups),
        "bundle": {"name": manifest.name, "sha256": engine.bundle.sha256},
        "data": {key: manifest.data[key] for key in ("name", "licence", "source")},
        "engine": {
            "msdm": version("msdm"),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "device": processor_name(),
            **engine.backend.identity,
        },
        "critic": manifest.critic if critic else None,
        "request": request.to_json(),
        "request_sha256": request.sha256(),
        "groups": [
            {
                "first": group.first,
                "count": group.count,
                "preset": group.look.preset,
                "colour": asdict(group.look.colour),
                "masks_sha256": group.masks_sha256,
                "mask_findings": asdict(group.findings),
                "sampling": asdict(group.sampling),
                "guidance": group.guidance.to_json(),
            }
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


def check_texts(tokenizer: TextTokenizer, groups: Iterable[ComposedGroup]) -> None:
    """Raises RequestError, naming the group, for a text that the bundle cannot take."""
    for number, group in enumerate(groups):
        try:
            tokenizer.encode(group.look.metadata.text())
        except RequestError as error:
            raise RequestError(f"group {number}: {error.what}", note=error.note, hint=error.hint) from error


def processor_name() -> str:
    """The processor, whose instruction set decides the last bits of a CPU backend's pixels."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())

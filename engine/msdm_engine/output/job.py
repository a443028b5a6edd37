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

from msdm_engine.bundle.reader import Bundle
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.contract import FLOAT32
from msdm_engine.engine import Engine
from msdm_engine.errors import RequestError
from msdm_engine.log import Log
from msdm_engine.output.pair_set import PairSet
from msdm_engine.output.records import NOTICE, SHEET_FILE
from msdm_engine.output.shard import Shard
from msdm_engine.output.sink import OutputChoice
from msdm_engine.pairs import Pair, PairRequest
from msdm_engine.redraw import Redrawn, check_critic_is_asked, sample_accepted
from msdm_engine.requests.compose import ComposedGroup, compose
from msdm_engine.requests.range_check import RangeCheck
from msdm_engine.requests.request import SetRequest
from msdm_engine.stage_clock import StageClocks

FOLDERS = OutputChoice()
QUIET = Log(quiet=True)


def generate(
    request: SetRequest,
    out: Path | None,
    *,
    bundle: Path | None = None,
    backend: str = "onnxruntime",
    threads: int = 0,
    parallel: int = 0,
    precision: str = FLOAT32,
    batch: int | None = None,
    critic: bool = True,
    resume: bool = False,
    output: OutputChoice = FOLDERS,
    shard: Shard | None = None,
    check_ranges: bool = False,
    log: Log | None = None,
) -> int:
    """Generates a set, or a shard of one, into a folder.

    Everything that can be checked is checked before the folder is made. Interrupted by Ctrl-C or an error, the
    pairs that are finished stay, whole, and ``resume`` completes the set to the same bytes.

    Args:
        critic: score each pair with the bundle's critic, if it has one.
        output: the format of the pairs.
        shard: make this part of the set only; :func:`msdm_engine.output.merge.merge_shards` joins all of them.
        check_ranges: warn of pairs outside the bundle's calibrated ranges, and say so in their records.

    Returns:
        the number of pairs written by this call.

    Raises:
        MsdmError: see the classes of :mod:`msdm_engine.errors`.
    """
    log = log or QUIET
    if out is None:
        raise RequestError("no output folder", hint="give --out FOLDER")
    check_critic_is_asked(request, critic)
    began = time.monotonic()
    opened = Bundle.open(bundle)
    groups = compose(opened.manifest, request, batch)
    sizes = {size for group in groups for size in group.work}
    output_header = output.header(sizes)
    wanted = shard.range_of(groups) if shard else range(sum(group.count for group in groups))
    redrawn, clocks = Redrawn(), StageClocks()
    check = RangeCheck.logged(opened, log) if check_ranges else None
    options: dict[str, Any] = {"backend": backend, "threads": threads, "parallel": parallel, "precision": precision}
    with Engine.open(opened, **options, watch=check.watched if check else None) as engine:
        check_texts(engine.tokenizer, groups)
        header = set_header(engine, request, groups, critic) | {"output": output_header}
        if check_ranges:
            header["check_ranges"] = True
        if shard:
            header["shard"] = shard.header(wanted)
        log.detail("opened", bundle=opened.sha256, pairs=len(wanted), **engine.backend.identity)
        for number, group in enumerate(groups):
            if group.findings.text():
                log.detail("masks", group=number, **asdict(group.findings))
        written = fill(
            engine, groups, wanted, out, header,
            resume=resume, log=log, redrawn=redrawn, clocks=clocks, check=check,
        )  # fmt: skip
    seconds = time.monotonic() - began
    rate = written / seconds
    text = f"{written} pairs in {seconds:.1f} s ({rate:.2f} pairs/s), look at {out / SHEET_FILE}"
    values = {"pairs": written, "seconds": round(seconds, 2), "pairs_per_second": round(rate, 3), "out": str(out)}
    if any(group.acceptance for group in groups):
        text, values = f"{text}\n{redrawn.text()}", values | asdict(redrawn)
    log.detail("stages", **(clocks.as_dict() if log.as_json else clocks.times()))
    log.summary("done", text, **values)
    return written


def fill(
    engine: Engine,
    groups: list[ComposedGroup],
    wanted: range,
    out: Path,
    header: dict[str, Any],
    *,
    resume: bool,
    log: Log = QUIET,
    redrawn: Redrawn | None = None,
    clocks: StageClocks | None = None,
    check: RangeCheck | None = None,
) -> int:
    """Samples the wanted pairs that are not there yet into a set; returns how many it wrote.

    Args:
        header: of :func:`set_header`, with ``output`` and, for a part of the set, ``shard``.
        check: looks at every request and says in the records what it found.
    """
    redrawn, clocks = redrawn or Redrawn(), clocks or StageClocks()
    sampling = clocks.stage("sample")
    with PairSet(out, header, resume=resume, clocks=clocks) as pairs:
        if pairs.done:
            log.detail("resuming", done=len(pairs.done))
        with tqdm(total=len(wanted), initial=len(pairs.done), unit="pair", disable=not log.bar) as bar:
            for group in groups:
                sampled = _sampled(engine, group, wanted, pairs.done, header["critic"] is not None, check)
                while True:
                    with sampling.busy():
                        pair = next(sampled, None)
                    if pair is None:
                        break
                    pairs.add(check.marked(pair) if check else pair)
                    redrawn.count(pair)
                    bar.update()
                    log.detail("pair", index=pair.request.index)
    return pairs.written


def _sampled(
    engine: Engine,
    group: ComposedGroup,
    wanted: range,
    done: Collection[int],
    critic: bool,
    check: RangeCheck | None = None,
) -> Iterator[Pair]:
    first, stop = max(group.first, wanted.start), min(group.first + group.count, wanted.stop)
    requests: Iterator[PairRequest] = (group.pair(index) for index in range(first, stop) if index not in done)
    if check is not None:
        requests = check.seen(requests)
    if group.acceptance is None:
        return engine.sample(requests, group.sampling, group.guidance, critic=critic)
    return sample_accepted(engine, requests, group.acceptance, group.sampling, group.guidance)


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

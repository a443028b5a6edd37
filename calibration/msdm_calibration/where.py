"""The lines of ``msdm-calibrate where``: support, and estimated gains of a bundle's quantised graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from msdm_calibration.hardware import GPUS, SUPPORT, Work, gains
from msdm_calibration.quantize.subject import Subject
from msdm_calibration.quantize.variants import entries_of
from msdm_engine.bundle.plan_spec import QUANTIZED
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER
from msdm_engine.errors import BundleError
from msdm_engine.pairs import PairRequest


def works_of(bundle: Bundle, size_px: int | None, batch: int) -> dict[str, Work]:
    """Precision -> work of one step of the denoiser, for each quantised precision that the bundle has.

    Raises:
        BundleError: it has none.
    """
    variants = bundle.manifest.graphs[DENOISER].variants
    there = [precision for precision in QUANTIZED if precision in variants]
    if not there:
        raise BundleError(
            f"bundle {bundle.manifest.name} has no quantised graphs",
            hint=f"msdm-calibrate quantize {bundle.folder} --to int8 --data PACK",
        )
    side = size_px or bundle.manifest.sampling.size_px
    request = PairRequest(index=0, seed=0, height_px=side, width_px=side)
    subject = Subject(bundle, (request,), bundle.manifest.sampling)
    return {name: work_of(subject, {e["node"] for e in entries_of(variants[name])}, batch) for name in there}


def work_of(subject: Subject, quantised: set[str], batch: int) -> Work:
    """Work of one step.

    Bytes are those of every matrix node by itself: its input, its weights and its output once, all in FP16. Codes take
    half of it for the input and the weight of what is quantised; outputs stay half.
    """
    flops, shapes = subject.flops, subject.shapes
    total = float(sum(flops.values()))
    weights = {i.name: int(np.prod(i.dims)) for i in subject.model.graph.initializer}
    moved = saved = 0.0
    for node in subject.model.graph.node:
        if node.name not in flops:
            continue
        read, kernel = batch * int(np.prod(shapes[node.input[0]])), weights.get(node.input[1], 0)
        moved += 2 * (read + kernel + batch * int(np.prod(shapes[node.output[0]])))
        saved += (read + kernel) * (node.name in quantised)
    share = sum(flops[node] for node in quantised) / total
    return Work(batch * total, share, moved, saved)


def support_lines() -> Iterator[str]:
    """What runs where, and how that is known."""
    for support in SUPPORT:
        yield f"{support.precision:5s} {support.runtime}: {support.runs} ({support.evidence})"


def gain_lines(works: Mapping[str, Work]) -> Iterator[str]:
    """Upper bounds of the speed over FP16, by GPU."""
    yield "at most so many times as fast as FP16 (roofline of matrix work and its memory at peak; an estimate):"
    for precision, work in works.items():
        yield f"{precision}: {100 * work.share:.1f} % of {work.matrix_flops / 1e9:.2f} GFLOP a step"
        for gpu in GPUS:
            gain = gains(work, precision)[gpu.name]
            shown = "no such arithmetic" if gain is None else f"{gain:.2f} x"
            yield f"  {gpu.name:16s} {gpu.generation:10s} {gpu.shown_capability:5s} {shown}"

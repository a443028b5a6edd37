"""Plans of the quantised reference bundle: which target takes which precision, without a GPU."""

from __future__ import annotations

from typing import Any

from benchmarks.quantization_search import Work, say

from msdm_calibration.quantize.grids import GRIDS
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER
from msdm_engine.errors import MsdmError
from msdm_export.plans.job import BuildRequest, build

#: One of each generation that TensorRT for RTX compiles for.
TARGETS = ("sm_75", "sm_86", "sm_89", "sm_120")


def plans(work: Work) -> list[dict[str, Any]]:
    """Builds every graph for each grid and target; a refusal is a row with its reason."""
    return [_row(work, grid, target) for grid in GRIDS for target in TARGETS]


def _row(work: Work, grid: str, target: str) -> dict[str, Any]:
    say(f"building {grid} for {target}")
    out, sampling = work.folder / f"{grid}-plans", Bundle.open(work.plain).manifest.sampling
    profile = f"{sampling.size_px}:{sampling.batch}"
    row: dict[str, Any] = {"precision": grid, "target": target, "profile": profile}
    source, new = (out, None) if out.exists() else (work.whole(grid), out)
    try:
        rows = build(BuildRequest(source, "tensorrt-rtx", (target,), (profile,), grid, out=new))
    except MsdmError as error:
        return row | {"refused": error.what, "note": error.note or ""}
    denoiser = next(found.spec for found in rows if found.spec.graph == DENOISER)
    return row | {"plans": len(rows), "size": denoiser.size, "build": denoiser.build}


def plans_table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown; of the denoiser's plan."""
    found = ["| precision | target | plan, MiB | quantisers | dequantisers | seconds |", "|---|---|---|---|---|---|"]
    for row in rows:
        if "refused" in row:
            found.append(f"| {row['precision']} | {row['target']} | none: {_reason(row)} | | | |")
            continue
        layers = row["build"]["layers"]
        counts = " | ".join(str(sum(layers[kind].values())) for kind in ("QUANTIZE", "DEQUANTIZE"))
        seconds, mib = row["build"]["seconds"], row["size"] / 2**20
        found.append(f"| {row['precision']} | {row['target']} | {mib:.1f} | {counts} | {seconds:.1f} |")
    return found


def _reason(row: dict[str, Any]) -> str:
    """Why nothing was built, in words."""
    if "FP32 GEMM" in row["note"]:
        return "TensorRT for RTX multiplies no float32 matrices there, and the sigma embedding is float32"
    return str(row["note"].splitlines()[-1] if row["note"] else row["refused"])

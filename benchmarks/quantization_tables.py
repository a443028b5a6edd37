"""Markdown tables of ``docs/calibration.md`` from ``benchmarks/results/quantization.json``."""

from __future__ import annotations

from typing import Any

from benchmarks.quantization_cpu import cpu_table
from benchmarks.quantization_plans import plans_table

from msdm_calibration.hardware import GPUS, SUPPORT
from msdm_calibration.quantize.grids import GRIDS


def tables(document: dict[str, Any]) -> dict[str, list[str]]:
    """All tables by their marks."""
    return {
        "quantized": _arms(document["arms"]),
        "chosen": _chosen(document["calibrations"]),
        "noise-levels": _levels(document["calibrations"]["int8"]["levels"]),
        "gains": _gains(document["gains"]),
        "where": _where(),
        "sets": _sets(document["search"]),
        "precision-map": _map(document["search"]),
        "cpu": cpu_table(document["cpu"]),
        "quantized-plans": plans_table(document["plans"]),
    }


def _arms(arms: dict[str, Any]) -> list[str]:
    rows = [
        "| graphs | trajectory error | pixels of 255: mean / 99 % / max | Dice | AJI | PQ | Wasserstein | ms a step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, arm in arms.items():
        pixels, fidelity = arm["pixels_of_255"], arm["fidelity"]
        rows.append(
            f"| {name} | {arm['trajectory_relative_l2']:.2g} | {pixels['mean']:.2f} / {pixels['p99']:.0f} / "
            f"{pixels['largest']} | {fidelity['dice']:.4f} | {fidelity['aji']:.4f} | {fidelity['pq']:.4f} | "
            f"{arm['wasserstein']:.4f} | {1000 * arm['step_on_cpu']['median_s']:.0f} |"
        )
    return rows


def _chosen(calibrations: dict[str, Any]) -> list[str]:
    rows = ["| | " + " | ".join(calibrations) + " |", "|---" * (1 + len(calibrations)) + "|"]
    for label, key in (("nodes quantised", "nodes"), ("inputs migrated", "migrated"),
                       ("inputs that follow the noise level", "follow_the_noise_level")):  # fmt: skip
        rows.append(f"| {label} | " + " | ".join(str(one[key]) for one in calibrations.values()) + " |")
    shares = [f"{100 * one['share_of_matrix_work']:.1f} %" for one in calibrations.values()]
    rows.append("| share of a step's matrix work | " + " | ".join(shares) + " |")
    words = [", ".join(f"{n} {k}" for n, k in one["criteria"].items()) for one in calibrations.values()]
    return [*rows, "| scales by | " + " | ".join(words) + " |"]


def _levels(levels: list[dict[str, float]]) -> list[str]:
    rows = ["| noise level | error of the final state, this step alone in INT8 | weight |", "|---|---|---|"]
    for level in levels:
        rows.append(f"| {level['sigma']:.3g} | {level['error_alone']:.2g} | {level['weight']:.3f} |")
    return rows


def _gains(gains: dict[str, Any]) -> list[str]:
    rows = [
        "| GPU | generation | capability | INT8 | FP8 | peak numbers by | compared with |",
        "|---|---|---|---|---|---|---|",
    ]
    for gpu in GPUS:
        cells = [gains[name]["times_fp16"][gpu.name] for name in GRIDS]
        shown = " | ".join("no such arithmetic" if cell is None else f"{cell:.2f} x" for cell in cells)
        rows.append(
            f"| {gpu.name} | {gpu.generation} | {gpu.shown_capability} | {shown} | {gpu.source} | {gpu.checked} |"
        )
    return rows


def _where() -> list[str]:
    rows = ["| precision | where | what runs | how that is known |", "|---|---|---|---|"]
    return rows + [f"| {s.precision} | {s.runtime} | {s.runs} | {s.evidence} |" for s in SUPPORT]


def _sets(search: dict[str, Any]) -> list[str]:
    """What was judged, by growing share; the chosen set is bold."""
    rows = [
        "| graphs | blocks | share of matrix work | trajectory error | Dice | Wasserstein | within the budget |",
        "|---|---|---|---|---|---|---|",
    ]
    plain = next(iter(search.values()))["float32"]
    rows.append(f"| float32 | 0 | 0 | 0 | {plain['dice']:.4f} | {plain['wasserstein']:.4f} | |")
    for name, found in search.items():
        for candidate in found["front"]:
            if candidate["scores"] is None:
                continue
            bold = "**" if candidate["blocks"] == found["chosen"]["blocks"] else ""
            scores, grown = candidate["scores"], candidate["scores"]["wasserstein"] / plain["wasserstein"] - 1
            rows.append(
                f"| {bold}{name}{bold} | {len(candidate['blocks'])} of {len(found['blocks'])} | "
                f"{bold}{100 * candidate['share']:.1f} %{bold} | {candidate['measured']:.2g} | {scores['dice']:.4f} | "
                f"{scores['wasserstein']:.4f} ({100 * grown:+.1f} %) | {'yes' if candidate['within'] else 'no'} |"
            )
    return rows


def _map(search: dict[str, Any]) -> list[str]:
    """Each block's errors, and whether the chosen set has it."""
    head = "".join(f" {name} alone | {name} left out | {name} set |" for name in search)
    rows = ["| block | share of matrix work |" + head, "|---" * (2 + 3 * len(search)) + "|"]
    by_name = {name: {block["name"]: block for block in found["blocks"]} for name, found in search.items()}
    for block, of in next(iter(by_name.values())).items():
        cells = "".join(
            f" {100 * by_name[name][block]['alone']:.2f} % | {100 * by_name[name][block]['without']:.2f} % | "
            f"{name if block in found['chosen']['blocks'] else 'rest'} |"
            for name, found in search.items()
        )
        rows.append(f"| `{block}` | {100 * of['share']:.1f} % |{cells}")
    return rows

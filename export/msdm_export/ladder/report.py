"""The ladder's results as JSON and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msdm_export.ladder.climb import GAIN, RungResult, finite
from msdm_export.ladder.errors import HIGH_OVER_RMS, LARGEST_OVER_RMS
from msdm_export.ladder.rungs import FACTORS, Rung

REASONS = {
    "rms": "factor x u x sqrt(L): u the unit roundoff, L the roundings on the longest path to the output, independent "
    "of one another (Higham and Mary 2019); of the root mean square of the largest output of its family. Denoiser: "
    "D's share of the network is c_out, x' holds c_d D.",
    "99.9 %": f"{HIGH_OVER_RMS:g} x that: 3.3 for a Gaussian; an error grows with its value, and values have tails",
    "max": f"{LARGEST_OVER_RMS:g} x that: 5 for a Gaussian over a million values; tails as above",
    "trajectory": "sum over the steps of the bound of x', times the gain of the rest for Gaussian data, "
    f"times {GAIN:g} where real data decides between modes",
    "factor": ", ".join(f"{name} {factor:g}" for name, factor in FACTORS.items()),
}


def as_json(rungs: Iterable[Rung], results: dict[str, RungResult]) -> dict[str, Any]:
    """Rung by rung, with the tolerances' reasons; a rung that was not run says why."""
    described: dict[str, Any] = {}
    for rung in rungs:
        result = results.get(rung.name)
        if result is None:
            described[rung.name] = {"what": rung.what, "status": rung.not_run}
            continue
        described[rung.name] = {
            "what": rung.what,
            "status": "passed" if result.passed else "failed",
            "graphs": {
                graph: {output: found.as_json() for output, found in outputs.items()}
                for graph, outputs in result.outputs.items()
            },
            "denoised_relative_l2_by_noise_level": {
                f"{level:g}": finite(value) for level, value in result.levels.items()
            },
            "trajectory": result.trajectory.as_json()
            | {"picture_largest_of_255": result.largest_of_255, "picture_mean_of_255": result.mean_of_255},
        }
    return {"tolerances": REASONS, "rungs": described}


def table(document: dict[str, Any]) -> Iterator[str]:
    """Rows of a Markdown table: one a graph and rung with its worst output, one a trajectory."""
    yield "| rung | graph | output | max | 99.9 % | relative L2 | of tolerance | worst at sigma |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, rung in document["rungs"].items():
        if "graphs" not in rung:
            yield f"| {name} | {rung['status'].replace('|', '/')} | | | | | | |"
            continue
        for graph, outputs in rung["graphs"].items():
            output, found = max(outputs.items(), key=lambda item: _share(item[1]))
            yield f"| {name} | {graph} | {output} | {_numbers(found)} |"
        yield f"| {name} | trajectory | final state | {_numbers(rung['trajectory'])} |"


def failures(document: dict[str, Any]) -> Iterator[str]:
    """One line for each output that failed: rung, output, noise level, first diverging layer."""
    for name, rung in document["rungs"].items():
        for graph, outputs in (
            rung.get("graphs", {}) | {"trajectory": {"final state": rung.get("trajectory")}}
        ).items():
            for output, found in outputs.items():
                if found is None or found["passed"]:
                    continue
                level = found["worst_at_noise_level"]
                at = "" if level is None else f" at noise level {level:.4g}"
                layer = found["first_diverging_layer"]
                first = f"; first diverging layer: {layer['op']} {layer['node']}" if layer else ""
                share = _number(found["share_of_tolerance"])
                yield f"{name}: {output} of {graph}{at} is {share} x its tolerance{first}"


def _share(found: dict[str, Any]) -> float:
    share = found["share_of_tolerance"]
    return float("inf") if share is None else float(share)


def _numbers(found: dict[str, Any]) -> str:
    level = found["worst_at_noise_level"]
    keys = ("largest_difference", "difference_99_9", "relative_l2", "share_of_tolerance")
    return " | ".join([*(_number(found[key]) for key in keys), "" if level is None else f"{level:.3g}"])


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2g}"

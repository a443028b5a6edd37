"""Rows of sections that return their scores in another form than :class:`msdm_train.evaluation.rows.Row`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msdm_train.evaluation.rows import Row
from msdm_train.evaluation.statistics import Interval

#: Pooled scores of the section fidelity: name in its JSON, as it is shown, unit, whether more is better.
FIDELITY = (
    ("dice", "Dice", "", True),
    ("aji", "AJI", "", True),
    ("pq", "PQ", "", True),
    ("boundary_mean_px", "boundary distance", "px", False),
)
#: The metric of usefulness that the table shows; the others stand below it.
USEFULNESS = "pq"


def fidelity_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ratio of each pooled score to that of real windows, and the score itself between floor and ceiling."""
    rows = []
    n = result["n"]["generated"]
    for key, name, unit, more in FIDELITY:
        made, real, shuffled = (result["scores"][of]["pooled"][key] for of in ("generated", "real", "shuffled"))
        ratio = result["ratio"][key]
        if ratio["value"] is not None:
            rows.append(
                Row(
                    f"{name}, generated / real", interval_of(ratio), n,
                    "pooled score of generated pictures over that of real windows; above one: easier than real",
                    want="one" if more else "",
                ).to_json()
            )  # fmt: skip
        if made is not None:
            ends = {"floor": shuffled, "ceiling": real} if more else {"floor": real, "ceiling": shuffled}
            alone = Interval(made, None, None, len(result["fields"]), reason="see the ratio")
            rows.append(
                Row(
                    name, alone, n,
                    "generated pictures against the masks asked for; real windows and shuffled masks are the ends",
                    unit, "high" if more else "low", **ends,
                ).to_json()
            )  # fmt: skip
    return rows


def usefulness_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Effect of each arm on one metric; zero is the bad end."""
    return [
        Row(
            f"{effect['arm']} - {effect['base']}, {effect['nuclei']} nuclei, {effect['fraction']:.0%} of the labels",
            interval_of(effect), effect["n_fields"] * effect["n_seeds"],
            f"paired difference of {effect['metric'].upper()} on held-out fields; floor: no effect",
            want="high", floor=0.0,
        ).to_json()
        for effect in result["effects"]
        if effect["metric"] == USEFULNESS and effect["value"] is not None
    ]  # fmt: skip


def interval_of(told: Mapping[str, Any]) -> Interval:
    """An interval from its JSON."""
    return Interval(told["value"], told["low"], told["high"], told["n_fields"])


#: By the section's name.
ADAPTERS: dict[str, Callable[[Mapping[str, Any]], list[dict[str, Any]]]] = {
    "fidelity": fidelity_rows,
    "usefulness": usefulness_rows,
}

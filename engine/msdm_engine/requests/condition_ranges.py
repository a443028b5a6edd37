"""The ranges that a bundle was calibrated on, and which of them a request's conditions leave.

`msdm-calibrate ranges --store` writes them into the manifest; `msdm-engine sample --check-ranges` reads them
(:mod:`msdm_engine.requests.range_check`). What a condition is called and how it is measured stands here once, for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdm_engine.bundle.manifest_checks import keys, malformed, mapping, number, sequence, sha256, text, whole
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.pairs import PairRequest

Ends = tuple[float, float]


@dataclass(frozen=True)
class Calibrated:
    """What a bundle was calibrated on, as its manifest holds it.

    Args:
        data: name of the data set.
        windows: real windows that were measured.
        graphs: SHA-256 of each graph at that time; ranges of other graphs say nothing.
        conditions: name of a condition (:func:`condition_values`) -> smallest and largest value.
        activations: ``graph/tensor`` -> smallest and largest value along whole trajectories.
    """

    data: str
    windows: int
    graphs: dict[str, str]
    conditions: dict[str, Ends]
    activations: dict[str, Ends]


def read_calibrated(raw: Any, where: str) -> Calibrated:
    """Reads the manifest's entry; a BundleError names what is malformed."""
    entry = keys(raw, where, ("data", "windows", "graphs", "conditions", "activations"))
    return Calibrated(
        text(entry["data"], f"{where} data"),
        whole(entry["windows"], f"{where} windows", 1, 2**31),
        mapping(entry["graphs"], f"{where} graphs", sha256),
        mapping(entry["conditions"], f"{where} conditions", _ends),
        mapping(entry["activations"], f"{where} activations", _ends),
    )


def _ends(raw: Any, where: str) -> Ends:
    values = sequence(raw, where, number)
    if len(values) != 2 or values[0] > values[1]:
        raise malformed(where, "is not a smallest and a largest value")
    return values[0], values[1]


def condition_values(request: PairRequest, tokenizer: TextTokenizer) -> dict[str, float]:
    """A request's conditions as numbers, by name; what is not given has no value but its ``... given``, which is 0.

    Sizes in pixels, colours in 8-bit units. Nuclei are counted for each 10,000 px, so that the number does not follow
    from the size of the picture.

    Raises:
        RequestError: a text that is too long.
    """
    values = {"height in px": float(request.height_px), "width in px": float(request.width_px)}
    instances, words = request.instances, request.metadata.text()
    values["morphology given"] = float(instances is not None)
    if instances is not None:
        areas = np.bincount(instances.ravel())[1:]
        areas = areas[areas > 0]
        values["nuclear area fraction"] = float(areas.sum() / instances.size)
        values["nuclei on 10,000 px"] = float(len(areas) * 1e4 / instances.size)
        if len(areas):
            values["median nuclear area in px"] = float(np.median(areas))
    for name in ("foreground", "background"):
        region = getattr(request.colour, name)
        values[f"{name} colour given"] = float(region is not None)
        for statistic in () if region is None else ("mean", "std"):
            for channel, value in zip(("red", "green", "blue"), getattr(region, statistic), strict=True):
                values[f"{name} {channel} {statistic}"] = float(value)
    values["text given"] = float(bool(words))
    if words:
        values["text tokens"] = float(tokenizer.encode(words)[1].sum())
        values["unknown words in the text"] = float(len(tokenizer.unknown(words)))
    return values


def ranges_of(values: Iterable[Mapping[str, float]]) -> dict[str, Ends]:
    """Smallest and largest value of each condition over many requests."""
    found: dict[str, Ends] = {}
    for one in values:
        for name, value in one.items():
            low, high = found.get(name, (value, value))
            found[name] = min(low, value), max(high, value)
    return found


@dataclass(frozen=True)
class Departure:
    """A value outside its calibrated range.

    Args:
        name: of the condition or activation.
    """

    name: str
    value: float
    low: float
    high: float

    def text(self) -> str:
        """``background green mean 12 is below the calibrated 61 to 244``."""
        side = "below" if self.value < self.low else "above"
        if self.low == self.high:
            return f"{self.name} {self.value:.4g} is {side} the calibrated {self.low:.4g}"
        return f"{self.name} {self.value:.4g} is {side} the calibrated {self.low:.4g} to {self.high:.4g}"


def departures(values: Mapping[str, float], ranges: Mapping[str, Ends]) -> list[Departure]:
    """The values outside their ranges; what was not calibrated cannot be left."""
    return [
        Departure(name, value, *ranges[name])
        for name, value in values.items()
        if name in ranges and not ranges[name][0] <= value <= ranges[name][1]
    ]

"""The pairs of a set as the page's columns: what filter, sort and histograms need of every pair at once."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdm_engine.conditions.colour import RegionColour
from msdm_engine.gallery.manifest import Record
from msdm_engine.gallery.measure import Measured

#: One character for each bin or level; read by ``data.js``.
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ALPHABET_BYTES = np.frombuffer(ALPHABET.encode(), np.uint8)
#: Fewer than this many bins in a histogram of nuclei.
MAX_BINS = 36
#: What the page knows of a measure.
TOLD = ("key", "label", "unit", "about")
#: Label and explanation of what :mod:`msdm_engine.output.pair_set` records of the critic.
OF_CRITIC = {
    "dice": ("Agreement, Dice", "of the nuclei that the critic finds in the image with the mask, pixel by pixel"),
    "aji": ("Agreement, AJI", "of the nuclei that the critic finds in the image with the mask, nucleus by nucleus"),
    "accepted": ("Accepted", "1: the pair reached the Dice asked for; 0: it did not, and is the best of its draws"),
    "draws": ("Draws", "how often the pair was drawn until it was accepted, or given up"),
}


@dataclass(frozen=True)
class Bins:
    """Equal bins ``low + i * step``; the last one takes all that is beyond where ``open`` is set."""

    low: float
    step: float
    count: int
    open: bool


def bins_for(values: NDArray[np.floating | np.integer], low: float) -> Bins:
    """Bins of a round width from ``low`` to the 99.5th percentile: a few giants do not flatten the rest."""
    if not len(values):
        return Bins(low, 1.0, 1, False)
    high = float(np.percentile(values, 99.5, method="higher"))  # of a few values the largest
    step = nice_step((high - low) / (MAX_BINS - 2))
    count = int((high - low) / step) + 1
    return Bins(low, step, count, bool(values.max() >= low + step * count))


def nice_step(at_least: float) -> float:
    """The least of 1, 2, 2.5, 5 times a power of ten that is not below ``at_least``; 1 for zero and below."""
    if at_least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(at_least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= at_least * (1 - 1e-9))


class Columns:
    """Collects pairs; holds about half a kilobyte and eight bytes a nucleus of each."""

    def __init__(self) -> None:
        self._pairs: dict[str, list[Any]] = {key: [] for key in ("index", "seed", "height", "width", "image", "mask")}
        self._condition: list[int] = []
        self._conditions: dict[str, int] = {}
        self._measured: dict[str, list[list[float] | None]] = {"foreground": [], "background": []}
        self._values: dict[str, list[float | None]] = {
            key: [] for key in ("nuclei", "area", "aspect", "colour_difference")
        }
        self._agreement: dict[str, dict[int, float]] = {}
        self._area: list[NDArray[np.uint32]] = []
        self._aspect: list[NDArray[np.float32]] = []
        self._colour_levels: list[str] = []

    def __len__(self) -> int:
        return len(self._condition)

    def add(self, record: Record, measured: Measured) -> None:
        """Takes a pair in; pairs are numbered in this order."""
        row = (record.index, str(record.seed), record.height_px, record.width_px, str(record.image), str(record.mask))
        for column, value in zip(self._pairs.values(), row, strict=True):
            column.append(value)
        for name, number in record.agreement.items():
            self._agreement.setdefault(name, {})[len(self)] = number
        # Many pairs share their conditions, which are the longest texts: each is kept once.
        self._condition.append(self._conditions.setdefault(_condition(record), len(self._conditions)))
        for region in ("foreground", "background"):
            self._measured[region].append(_numbers(getattr(measured.colour, region)))
        self._values["nuclei"].append(measured.nuclei)
        self._values["area"].append(_median(measured.area_px))
        self._values["aspect"].append(_median(measured.aspect_ratio))
        self._values["colour_difference"].append(measured.colour_difference)
        self._area.append(measured.area_px.astype(np.uint32))
        self._aspect.append(measured.aspect_ratio.astype(np.float32))
        levels = np.rint(measured.colour_shares * (len(ALPHABET) - 1)).astype(np.intp)
        self._colour_levels.append(_ALPHABET_BYTES[levels.reshape(-1)].tobytes().decode("ascii"))

    def to_json(self) -> dict[str, Any]:
        """What ``data.js`` reads; a median of no whole nucleus and an absent value are null."""
        area, area_text = _binned(self._area, low=0.0)
        aspect, aspect_text = _binned(self._aspect, low=1.0)
        return {
            **self._pairs,
            "condition": self._condition,
            "conditions": [json.loads(text) for text in self._conditions],
            "measured": self._measured,
            "measures": [{**told, "values": _rounded(values)} for told, values in self._measures()],
            "nuclei": {
                "area": {"bins": asdict(area), "text": area_text},
                "aspect": {"bins": asdict(aspect), "text": aspect_text},
            },
            "colour": self._colour_levels,
            "alphabet": ALPHABET,
        }

    def _measures(self) -> list[tuple[dict[str, str], list[float | None]]]:
        """The numbers of each pair that can be filtered and sorted by, with their labels and units."""
        told = [
            ("nuclei", "Nuclei in a pair", "", "all nuclei, those that the border cuts included"),
            ("area", "Median nuclear area", "px", "of whole nuclei, which the border does not cut"),
            ("aspect", "Median aspect ratio", "", "of whole nuclei: long to short axis of the second moments"),
        ]
        if any(value is not None for value in self._values["colour_difference"]):
            about = "CIE 1976, from the mean colour asked for to the one measured, of the region where it is larger"
            told.append(("colour_difference", "Colour difference", "ΔE", about))
        found = [(dict(zip(TOLD, row, strict=True)), self._values[row[0]]) for row in told]
        for name, numbers in self._agreement.items():
            label, about = OF_CRITIC.get(name, (f"Agreement {name}".strip(), "of the image with its mask, as recorded"))
            row = (f"agreement {name}", label, "", about)
            found.append((dict(zip(TOLD, row, strict=True)), [numbers.get(pair) for pair in range(len(self))]))
        return found


def _condition(record: Record) -> str:
    asked = {
        "morphology": record.morphology,
        "foreground": _numbers(record.colour.foreground),
        "background": _numbers(record.colour.background),
        "metadata": record.metadata,
        "other": record.other,
    }
    return json.dumps(asked)


def _numbers(colour: RegionColour | None) -> list[float] | None:
    """Mean, then standard deviation of R, G, B."""
    return None if colour is None else [round(value, 1) for value in (*colour.mean, *colour.std)]


def _median(values: NDArray[Any]) -> float | None:
    return float(np.median(values)) if len(values) else None


def _rounded(values: list[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 4) for value in values]


def _binned(parts: list[Any], low: float) -> tuple[Bins, list[str]]:
    """Bins over all nuclei, and for each pair one character a nucleus."""
    bins = bins_for(np.concatenate(parts) if parts else np.zeros(0), low)
    texts = []
    for values in parts:
        index = np.clip(((values - low) / bins.step).astype(np.intp), 0, bins.count - 1)
        texts.append(_ALPHABET_BYTES[index].tobytes().decode("ascii"))
    return bins, texts

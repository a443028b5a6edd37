"""Shape profiles: which sizes, batches and guidance branches plans are built for, and what that is for each graph.

``SIZE:BATCHES[:BRANCHES]``, as in ``128:1,8,32`` or ``128x256:8:1,2``: each combination is one static plan of the
denoiser, whose CUDA graph is captured once. A run without guidance has one branch; each guided modality adds one
(:meth:`msdm_engine.sampling.guidance.Guidance.branches`), and rows outside the guidance interval still run one. With
dynamic shapes a profile is one plan from the smallest to the largest value, best at the one in the middle of the list.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from msdm_engine.bundle.graph_shapes import shapes_of, split_dimension
from msdm_engine.bundle.manifest import MAX_BATCH, GraphSpec, Variant
from msdm_engine.bundle.plan_spec import Range
from msdm_engine.contract import CONDITIONER, TEXT_ENCODER
from msdm_engine.errors import BundleError, RequestError
from msdm_engine.pairs import MAX_SIDE_PX, MIN_SIDE_PX
from msdm_engine.sampling.guidance import WITHOUT

MAX_BRANCHES = len(WITHOUT)
FORM = "SIZE:BATCHES[:BRANCHES], as in 128:1,8,32 or 128x256:8:1,2"


@dataclass(frozen=True)
class Profile:
    """Ranges (smallest, optimal, largest) of what a run may ask for."""

    height_px: Range
    width_px: Range
    batch: Range
    branches: Range

    def __str__(self) -> str:
        size = _shown(self.height_px)
        if self.width_px != self.height_px:
            size += f"x{_shown(self.width_px)}"
        return f"{size} px, batch {_shown(self.batch)}, {_shown(self.branches)} branch(es)"

    def overlaps(self, other: Profile) -> bool:
        """Whether some shape belongs to both."""
        return all(mine[0] <= theirs[2] and theirs[0] <= mine[2] for mine, theirs in self._pairs(other))

    def _pairs(self, other: Profile) -> Iterable[tuple[Range, Range]]:
        return ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)

    def dimensions(self, graph: str, spec: GraphSpec | Variant, stride: int) -> dict[str, Range]:
        """Range of each dynamic dimension of a graph's inputs, by the manifest's name for it.

        The text encoder runs one text at a time; the conditioner sees the branches folded into the batch.
        """
        own = graph_stride(graph, spec, stride)
        known = {
            "batch": self.batch,
            "branches": self.branches,
            "rows": _divided(self.height_px, own),
            "columns": _divided(self.width_px, own),
            "samples": self._samples(graph),
        }
        found: dict[str, Range] = {}
        for tensor in spec.inputs:
            for dimension in tensor.shape:
                if isinstance(dimension, str):
                    _, name = split_dimension(dimension, graph)
                    if name not in known:
                        raise BundleError(
                            f"graph '{graph}' has the dynamic dimension '{dimension}'",
                            note=f"a profile gives {', '.join(known)}",
                            hint="export the bundle with this version of msdm",
                        )
                    found[name] = known[name]
        return found

    def _samples(self, graph: str) -> Range:
        if graph == TEXT_ENCODER:
            return 1, 1, 1
        if graph == CONDITIONER:
            low, best, high = (b * g for b, g in zip(self.batch, self.branches, strict=True))
            return low, best, high
        return self.batch


def graph_stride(graph: str, spec: GraphSpec | Variant, stride: int) -> int:
    """Pixels of a row of the graph's coarsest resolution: the critic's may differ from the bundle's ``stride``."""
    split = (split_dimension(d, graph) for tensor in spec.inputs for d in tensor.shape if isinstance(d, str))
    return max((factor for factor, name in split if name == "rows"), default=stride)


def input_shapes(graph: str, spec: GraphSpec | Variant, dimensions: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Shape of each input of a graph where its dynamic dimensions have these values."""
    return shapes_of(graph, spec.inputs, dimensions)


def parse_profiles(words: Iterable[str], stride: int, *, dynamic: bool = False) -> list[Profile]:
    """Profiles of the command line, in their order.

    Args:
        stride: sizes must be multiples of it; the engine pads others up to one.
        dynamic: one profile for each word, from its smallest to its largest value; else one for each combination.

    Raises:
        RequestError: none, not of the form, out of range, or two that share a shape.
    """
    profiles = [profile for word in words for profile in _parse(word, stride, dynamic)]
    if not profiles:
        raise RequestError("no profile", note=FORM, hint="name the sizes and batches that will run, with --profile")
    for first, second in itertools.combinations(profiles, 2):
        if first.overlaps(second):
            raise RequestError(
                f"profiles overlap: {first}; and {second}", note="a shape has one plan", hint="leave one of them out"
            )
    return profiles


def _parse(word: str, stride: int, dynamic: bool) -> list[Profile]:
    parts = word.split(":")
    if not 2 <= len(parts) <= 3:
        raise RequestError(f"profile '{word}'", note=FORM)
    sides = [_numbers(side, word, "-", MIN_SIDE_PX, MAX_SIDE_PX, "px") for side in parts[0].split("x")]
    if len(sides) > 2:
        raise RequestError(f"profile '{word}' has {len(sides)} sides", note=FORM)
    height, width = sides[0], sides[-1]
    for side in itertools.chain(height, width):
        if side % stride:
            raise RequestError(
                f"profile '{word}': {side} px", note=f"a multiple of the bundle's stride, {stride} px",
                hint=f"use {side + -side % stride}: that is what the engine pads {side} px to",
            )  # fmt: skip
    if not dynamic and len(height) + len(width) > 2:
        raise RequestError(
            f"profile '{word}' is a range of sizes",
            note="a static plan has one",
            hint="add --dynamic, or name each size",
        )
    batches = _numbers(parts[1], word, ",", 1, MAX_BATCH, "batch")
    branches = _numbers(parts[2], word, ",", 1, MAX_BRANCHES, "branches") if len(parts) == 3 else [1]
    if dynamic:
        return [Profile(_range(height), _range(width), _range(batches), _range(branches))]
    high, wide = height[0], width[0]
    return [Profile((high,) * 3, (wide,) * 3, (b,) * 3, (g,) * 3) for b in batches for g in branches]


def _numbers(text: str, word: str, separator: str, low: int, high: int, unit: str) -> list[int]:
    values = []
    for part in text.split(separator):
        if not re.fullmatch(r"[0-9]{1,6}", part) or not low <= int(part) <= high:
            raise RequestError(f"profile '{word}': '{part}' is no {unit}", note=f"{low} to {high}; {FORM}")
        values.append(int(part))
    if len(set(values)) < len(values):
        raise RequestError(f"profile '{word}' names a value twice", note=FORM)
    return sorted(values)


def _range(values: list[int]) -> Range:
    return values[0], values[len(values) // 2], values[-1]


def _divided(sides: Range, stride: int) -> Range:
    low, best, high = (-(-side // stride) for side in sides)  # the engine pads up to a multiple
    return low, best, high


def _shown(values: Range) -> str:
    return str(values[0]) if values[0] == values[2] else f"{values[0]}-{values[2]}"

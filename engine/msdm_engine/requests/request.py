"""Requests: what a whole set should hold, as frozen dataclasses.

:mod:`msdm_engine.requests.file` reads the same from a YAML or JSON file; ``msdm-engine schema`` prints its schema.
A legal object is legal for some bundle; whether for the one at hand, :func:`msdm_engine.requests.compose.compose` says.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from msdm_engine.conditions.colour import RegionColour
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.critic import Acceptance
from msdm_engine.errors import RequestError, nearest
from msdm_engine.layouts import LAYOUTS, LayoutRequest
from msdm_engine.pairs import MAX_SIDE_PX, MIN_SIDE_PX
from msdm_engine.sampling.guidance import Guidance
from msdm_engine.sampling.schedule import MAX_STEPS, SOLVERS

FORMAT_VERSION = 1
MAX_GROUPS = 1000
#: Of a whole set.
MAX_PAIRS = 10_000_000
MAX_SEED = 2**64 - 1
MAX_TEXT_CHARACTERS = 2000
MAX_JITTER = 64.0

#: What a layout may be told; its size, seed and index come from the group.
LAYOUT_OPTIONS = tuple(
    f.name for f in fields(LayoutRequest) if f.name not in ("kind", "height_px", "width_px", "seed", "index")
)


@dataclass(frozen=True)
class Masks:
    """Follow the instance maps of a folder, in the order of their names.

    Args:
        folder: holds PNG, TIFF or NPY files, see :func:`msdm_engine.inputs.masks.read_instances`.
        root: links in the folder may not leave this one; None: links are followed.
    """

    folder: Path
    root: Path | None = None


@dataclass(frozen=True)
class Layout:
    """Follow drawn layouts.

    Args:
        kind: a key of :data:`msdm_engine.layouts.LAYOUTS`.
        options: of :data:`LAYOUT_OPTIONS`, as in :class:`msdm_engine.layouts.LayoutRequest`.
    """

    kind: str
    options: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Invent:
    """Let the model invent the layout; the mask is decoded from the maps that it generates."""


Morphology = Masks | Layout | Invent


@dataclass(frozen=True)
class ColourChoice:
    """Where the colour comes from, over the preset's if there is one.

    Args:
        foreground, background: numbers, 8-bit units.
        image, mask: a picture and its instance map, instead of numbers.
        jitter: each mean moves by up to this much (8-bit units, 0 to 64), differently for each pair and channel.
    """

    foreground: RegionColour | None = None
    background: RegionColour | None = None
    image: Path | None = None
    mask: Path | None = None
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if (self.image is None) != (self.mask is None):
            raise RequestError(
                "colour from a picture needs the picture and its mask",
                note="foreground and background are told apart by the mask",
                hint="give both, image (--colour-from) and mask (--colour-mask)",
            )
        if self.image is not None and (self.foreground or self.background):
            raise RequestError("colour has numbers and a picture", note="give one of them")
        if not 0 <= self.jitter <= MAX_JITTER:  # also refuses NaN
            raise RequestError(f"colour jitter {self.jitter}", note=f"0 to {MAX_JITTER:g} (8-bit units)")


@dataclass(frozen=True)
class GroupRequest:
    """Pairs that share their conditions.

    Args:
        morphology: what the pairs follow.
        count: pairs, 1 to 10,000,000; None: one for each mask. More pairs than masks go round them again.
        height_px, width_px: 16 to 4096 (64 to 4096 with a layout); None: the bundle's own. Masks have their own size.
        preset: appearance of the training data; None with a layout: the preset of its architecture.
        guidance: None: the bundle's; ``Guidance()`` is none.
        seed: 0 to 2^64 - 1; None: the seed of the set.
        steps: 1 to 1000; None: the bundle's.
        solver: a key of :data:`msdm_engine.sampling.schedule.SOLVERS`; None: the bundle's.
        acceptance: which pairs are drawn again; None: none.

    Raises:
        RequestError: a value that is not legal for any bundle.
    """

    morphology: Morphology
    count: int | None = None
    height_px: int | None = None
    width_px: int | None = None
    preset: str | None = None
    colour: ColourChoice = field(default_factory=ColourChoice)
    metadata: Metadata = field(default_factory=Metadata)
    guidance: Guidance | None = None
    seed: int | None = None
    steps: int | None = None
    solver: str | None = None
    acceptance: Acceptance | None = None

    def __post_init__(self) -> None:
        if self.count is None and not isinstance(self.morphology, Masks):
            raise RequestError("count is missing", note="only a group that follows masks knows its own count")
        for name, low, high in (
            ("count", 1, MAX_PAIRS),
            ("height_px", MIN_SIDE_PX, MAX_SIDE_PX),
            ("width_px", MIN_SIDE_PX, MAX_SIDE_PX),
            ("seed", 0, MAX_SEED),
            ("steps", 1, MAX_STEPS),
        ):
            check_whole(name, getattr(self, name), low, high)
        if self.solver is not None and self.solver not in SOLVERS:
            raise RequestError(f"unknown solver '{self.solver}'", note=nearest(self.solver, SOLVERS))
        if self.preset == "":
            raise RequestError("the preset has no name", hint="leave the key out, or name one: `msdm-engine show`")
        if isinstance(self.morphology, Masks) and (self.height_px is not None or self.width_px is not None):
            raise RequestError("a size and masks are given", note="the masks decide the size")
        if isinstance(self.morphology, Layout):
            self._check_layout(self.morphology)
        for name, text in asdict(self.metadata).items():
            if len(text) > MAX_TEXT_CHARACTERS:
                raise RequestError(f"{name} has {len(text)} characters", note=f"at most {MAX_TEXT_CHARACTERS}")

    def _check_layout(self, layout: Layout) -> None:
        """Options that no picture can have, or not one of the size given, are errors here."""
        if layout.kind not in LAYOUTS:
            raise RequestError(f"unknown layout '{layout.kind}'", note=nearest(layout.kind, LAYOUTS))
        for name in layout.options:
            if name not in LAYOUT_OPTIONS:
                raise RequestError(f"unknown layout option '{name}'", note=nearest(name, LAYOUT_OPTIONS))
        height, width = self.height_px or MAX_SIDE_PX, self.width_px or MAX_SIDE_PX
        LayoutRequest.from_options(kind=layout.kind, height_px=height, width_px=width, seed=0, **layout.options)


@dataclass(frozen=True)
class SetRequest:
    """A whole set: its groups in order. Pair numbers run through all groups.

    Args:
        groups: 1 to 1000.
        seed: 0 to 2^64 - 1, of the groups that have none.
    """

    groups: tuple[GroupRequest, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.groups) <= MAX_GROUPS:
            raise RequestError(f"{len(self.groups)} groups", note=f"1 to {MAX_GROUPS}")
        check_whole("seed", self.seed, 0, MAX_SEED)
        check_total(sum(group.count or 0 for group in self.groups))

    def to_json(self) -> dict[str, Any]:
        """The request as it is recorded with a set; of a path only its last part."""
        return {"version": FORMAT_VERSION, "seed": self.seed, "groups": [_group_json(group) for group in self.groups]}

    def sha256(self) -> str:
        """Identity of the request: hash of its canonical JSON."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    """Raises RequestError unless the value is None or a whole number in the range."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
        raise RequestError(f"{name} is {shown(value)}", note=f"a whole number from {low} to {high}")


def shown(value: Any) -> str:
    """A value in an error message: short, and safe for numbers that are too long for Python to print."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    try:
        return repr(value)[:120]
    except (ValueError, RecursionError):  # such a number, or a depth, inside a list
        return f"a {type(value).__name__}"


def check_total(pairs: int) -> None:
    """Raises RequestError if a set would hold too many pairs."""
    if pairs > MAX_PAIRS:
        raise RequestError(f"{pairs} pairs", note=f"at most {MAX_PAIRS} in a set", hint="make several sets")


def _plain(value: Any) -> Any:
    """As JSON that is equal for equal requests: 5.0 and 5 are one number."""
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Path):
        return value.name
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _group_json(group: GroupRequest) -> dict[str, Any]:
    raw: dict[str, Any] = {**_plain(group), "morphology": _morphology_json(group.morphology)}
    if group.acceptance is None:
        del raw["acceptance"]  # younger than the format: a request without it keeps its hash
    return raw


def _morphology_json(morphology: Morphology) -> Any:
    if isinstance(morphology, Masks):
        return {"masks": morphology.folder.name}
    if isinstance(morphology, Layout):
        return {"layout": morphology.kind, **{name: _plain(value) for name, value in morphology.options.items()}}
    return "invent"

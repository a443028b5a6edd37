"""Requests: what a whole set should hold, as frozen dataclasses and as a YAML or JSON file.

    version: 1
    seed: 5
    groups:
      - count: 8
        size: 128                                  # or [height, width], in px
        morphology: {layout: columnar, area_px: 400}   # or {masks: folder}, or invent
        preset: lilac-columnar-large
        colour: {jitter: 6}
        metadata: {indication: colon}
        guidance: {colour: 0.5, sigma_high: 5}
        steps: 20

A file is untrusted: it is bounded in size, YAML aliases are refused, and its paths may not leave its folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from msdm_engine.conditions.colour import RGB, RegionColour
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.errors import InputError, RequestError, nearest
from msdm_engine.guidance import Guidance
from msdm_engine.layouts import LAYOUTS, LayoutRequest

FORMAT_VERSION = 1
MAX_FILE_BYTES = 1 << 20
MAX_GROUPS = 1000
MAX_PAIRS = 10_000_000
MIN_SIDE_PX, MAX_SIDE_PX = 16, 4096
MAX_TEXT_CHARACTERS = 2000
MAX_JITTER = 64.0


@dataclass(frozen=True)
class Masks:
    """Follow the instance maps of a folder, in the order of their names."""

    folder: Path


@dataclass(frozen=True)
class Layout:
    """Follow drawn layouts; ``options`` as in :class:`msdm_engine.layouts.LayoutRequest`."""

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
        jitter: each mean moves by up to this much (8-bit units), differently for each pair and channel.
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
        if not 0 <= self.jitter <= MAX_JITTER:
            raise RequestError(f"colour jitter {self.jitter}", note=f"0 to {MAX_JITTER:g} (8-bit units)")


@dataclass(frozen=True)
class GroupRequest:
    """Pairs that share their conditions.

    Args:
        morphology: what the pairs follow.
        count: pairs; None: one for each mask.
        height_px, width_px: None: the bundle's own size, or that of the masks.
        preset: appearance of the training data; None with a layout: the preset of its architecture.
        seed: None: the seed of the set.
        steps, solver: None: the bundle's.
    """

    morphology: Morphology
    count: int | None = None
    height_px: int | None = None
    width_px: int | None = None
    preset: str | None = None
    colour: ColourChoice = field(default_factory=ColourChoice)
    metadata: Metadata = field(default_factory=Metadata)
    guidance: Guidance = field(default_factory=Guidance)
    seed: int | None = None
    steps: int | None = None
    solver: str | None = None

    def __post_init__(self) -> None:
        if self.count is None and not isinstance(self.morphology, Masks):
            raise RequestError("count is missing", note="only a group that follows masks knows its own count")
        for name, low, high in (
            ("count", 1, MAX_PAIRS),
            ("height_px", MIN_SIDE_PX, MAX_SIDE_PX),
            ("width_px", MIN_SIDE_PX, MAX_SIDE_PX),
            ("seed", 0, 2**64 - 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise RequestError(f"{name} is {value}", note=f"a whole number from {low} to {high}")
        if isinstance(self.morphology, Masks) and self.height_px is not None:
            raise RequestError("a size and masks are given", note="the masks decide the size")
        if isinstance(self.morphology, Layout) and self.morphology.kind not in LAYOUTS:
            raise RequestError(f"unknown layout '{self.morphology.kind}'", note=nearest(self.morphology.kind, LAYOUTS))
        for name, text in asdict(self.metadata).items():
            if len(text) > MAX_TEXT_CHARACTERS:
                raise RequestError(f"{name} has {len(text)} characters", note=f"at most {MAX_TEXT_CHARACTERS}")


@dataclass(frozen=True)
class SetRequest:
    """A whole set: its groups in order. Pair numbers run through all groups."""

    groups: tuple[GroupRequest, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.groups) <= MAX_GROUPS:
            raise RequestError(f"{len(self.groups)} groups", note=f"1 to {MAX_GROUPS}")
        if not 0 <= self.seed < 2**64:
            raise RequestError(f"seed is {self.seed}", note="0 to 2^64 - 1")

    def to_json(self) -> dict[str, Any]:
        """The request as it is recorded with a set; of a path only its last part."""
        groups = [{**_plain(group), "morphology": _morphology_json(group.morphology)} for group in self.groups]
        return {"version": FORMAT_VERSION, "seed": self.seed, "groups": groups}

    def sha256(self) -> str:
        """Identity of the request: hash of its canonical JSON."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Path):
        return value.name
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return None
    return list(value) if isinstance(value, tuple) else value


def _morphology_json(morphology: Morphology) -> Any:
    if isinstance(morphology, Masks):
        return {"masks": morphology.folder.name}
    if isinstance(morphology, Layout):
        return {"layout": morphology.kind, **morphology.options}
    return "invent"


# --- files ---------------------------------------------------------------------------------------------------


class _NoAliasLoader(yaml.SafeLoader):
    """Safe YAML without aliases: a few hundred bytes of them expand to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise RequestError("the request uses a YAML alias", note="aliases are refused: write the value out")
        return super().compose_node(parent, index)


def load_request(path: Path, *, root: Path | None = None) -> SetRequest:
    """Reads a request file (YAML; JSON is YAML).

    Args:
        root: folder that the paths in the file are relative to and may not leave; None: the file's own.

    Raises:
        InputError: the file cannot be read or is too large.
        RequestError: not legal; names the group, the key and the nearest legal one.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"request {path} has {path.stat().st_size} bytes", note=f"at most {MAX_FILE_BYTES}")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"request {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"request {path} is not UTF-8 text: {error}") from error
    return parse_request(text, root=path.parent if root is None else root)


def parse_request(text: str, *, root: Path) -> SetRequest:
    """Reads the text of a request file; see :func:`load_request`."""
    try:
        raw = yaml.load(text, _NoAliasLoader)  # a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RequestError(f"the request is neither YAML nor JSON: {str(error)[:300]}") from error
    top = _mapping(raw, "the request", {"version", "seed", "groups"}, {"version", "groups"})
    if top["version"] != FORMAT_VERSION:
        raise RequestError(f"request version {top['version']!r}", note=f"this engine reads {FORMAT_VERSION}")
    groups = top["groups"]
    if not isinstance(groups, list) or not 1 <= len(groups) <= MAX_GROUPS:
        raise RequestError("groups is no list of groups", note=f"1 to {MAX_GROUPS} groups")
    parsed = []
    for number, group in enumerate(groups):
        try:
            parsed.append(_group(group, root))
        except RequestError as error:
            raise RequestError(f"group {number}: {error.what}", note=error.note, hint=error.hint) from error
    return SetRequest(tuple(parsed), _number(top, "seed", int, 0))


GROUP_KEYS = {"count", "size", "morphology", "preset", "colour", "metadata", "guidance", "seed", "steps", "solver"}
COLOUR_KEYS = {"foreground", "background", "image", "mask", "jitter"}
METADATA_KEYS = {"assay", "indication", "description"}
GUIDANCE_KEYS = {f.name for f in fields(Guidance)}
LAYOUT_KEYS = {f.name for f in fields(LayoutRequest)} - {"kind", "height_px", "width_px", "seed", "index"}


def _group(raw: Any, root: Path) -> GroupRequest:
    group = _mapping(raw, "a group", GROUP_KEYS, {"morphology"})
    metadata = _mapping(group.get("metadata", {}), "metadata", METADATA_KEYS)
    guidance = _mapping(group.get("guidance", {}), "guidance", GUIDANCE_KEYS)
    height, width = _size(group.get("size"))
    return GroupRequest(
        morphology=_morphology(group["morphology"], root),
        count=_number(group, "count", int),
        height_px=height,
        width_px=width,
        preset=_text(group, "preset", None),
        colour=_colour(group.get("colour", {}), root),
        metadata=Metadata(**{key: str(_text(metadata, key, "")) for key in METADATA_KEYS}),
        guidance=Guidance(**{key: _number(guidance, key, float) for key in guidance}),
        seed=_number(group, "seed", int),
        steps=_number(group, "steps", int),
        solver=_text(group, "solver", None),
    )


def _morphology(raw: Any, root: Path) -> Morphology:
    if raw == "invent":
        return Invent()
    if isinstance(raw, dict) and "masks" in raw:
        return Masks(_path(_mapping(raw, "morphology", {"masks"}), "masks", root))
    if isinstance(raw, dict) and "layout" in raw:
        given = _mapping(raw, "morphology", LAYOUT_KEYS | {"layout"})
        options = {key: _number(given, key, float) for key in given if key != "layout"}
        return Layout(str(_text(given, "layout", "")), options)
    raise RequestError(f"morphology {raw!r}"[:200], note="legal: {masks: FOLDER}, {layout: KIND, ...} or invent")


def _colour(raw: Any, root: Path) -> ColourChoice:
    colour = _mapping(raw, "colour", COLOUR_KEYS)
    return ColourChoice(
        foreground=_region(colour, "foreground"),
        background=_region(colour, "background"),
        image=_path(colour, "image", root) if "image" in colour else None,
        mask=_path(colour, "mask", root) if "mask" in colour else None,
        jitter=_number(colour, "jitter", float, 0.0),
    )


def _region(colour: dict[str, Any], name: str) -> RegionColour | None:
    if name not in colour:
        return None
    region = _mapping(colour[name], name, {"mean", "std"}, {"mean", "std"})
    return RegionColour(_rgb(region, "mean"), _rgb(region, "std"))


def _mapping(raw: Any, what: str, legal: set[str], needed: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise RequestError(f"{what} is {type(raw).__name__}", note=f"expected keys: {', '.join(sorted(legal))}")
    for key in raw:
        if key not in legal:
            raise RequestError(f"unknown key '{key}' in {what}"[:200], note=nearest(str(key), legal))
    missing = (needed or set()) - set(raw)
    if missing:
        raise RequestError(f"{what} lacks {', '.join(sorted(missing))}")
    return raw


Number = TypeVar("Number", int, float)


def _number(raw: dict[str, Any], key: str, kind: type[Number], default: Any = None) -> Any:
    value = raw.get(key, default)
    if value is None and key not in raw:
        return default
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is int and whole:
        return value
    if kind is float and (whole or isinstance(value, float)) and value == value and abs(value) != float("inf"):
        return value
    raise RequestError(f"{key} is {value!r}"[:200], note="a whole number" if kind is int else "a finite number")


def _text(raw: dict[str, Any], key: str, default: str | None) -> str | None:
    value = raw.get(key, default)
    if value is None or isinstance(value, str):
        return value
    raise RequestError(f"{key} is {value!r}"[:200], note="a text")


def _rgb(raw: dict[str, Any], key: str) -> RGB:
    value = raw[key]
    if not isinstance(value, list) or len(value) != 3:
        raise RequestError(f"{key} is {value!r}"[:200], note="three numbers: red, green, blue")
    red, green, blue = (float(_number({key: v}, key, float)) for v in value)
    return red, green, blue


def _size(raw: Any) -> tuple[int | None, int | None]:
    if raw is None:
        return None, None
    sides = raw if isinstance(raw, list) else [raw, raw]
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise RequestError(f"size is {raw!r}"[:200], note="a number of px, or [height, width]")
    return sides[0], sides[1]


def _path(raw: dict[str, Any], key: str, root: Path) -> Path:
    value = raw[key]
    if not isinstance(value, str) or not value or "\0" in value:
        raise RequestError(f"{key} is {value!r}"[:200], note="a path")
    path = (root / value).resolve()
    if not path.is_relative_to(root.resolve()):
        raise RequestError(
            f"{key} '{value}' leaves the folder of the request",
            note="paths are relative to the request file and stay below its folder",
            hint="move the data there, or name the folder it lies in with --root",
        )
    return path

"""Request files, YAML or JSON:

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
        min_agreement: 0.8                         # Dice with the critic, else drawn again
        max_redraws: 3

A file is untrusted: it is bounded in size, is plain data (:mod:`msdm_engine.requests.text`), and its paths may not
leave its folder. ``request.schema.json`` says the same to other programs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from msdm_engine.conditions.colour import RGB, RegionColour
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.critic import acceptance_of
from msdm_engine.errors import InputError, RequestError, nearest
from msdm_engine.layouts.request import WHOLE_NUMBERS
from msdm_engine.requests.request import (
    FORMAT_VERSION,
    LAYOUT_OPTIONS,
    MAX_GROUPS,
    ColourChoice,
    GroupRequest,
    Invent,
    Layout,
    Masks,
    Morphology,
    SetRequest,
    shown,
)
from msdm_engine.requests.text import plain_data
from msdm_engine.sampling.guidance import Guidance

MAX_FILE_BYTES = 1 << 20
#: Beyond it no number is legal anywhere, and float() or a printed message could fail.
MAX_NUMBER = 2.0**64

TOP_KEYS = ("version", "seed", "groups")
GROUP_KEYS = (
    *("morphology", "count", "size", "preset", "colour", "metadata", "guidance", "seed", "steps", "solver"),
    *("min_agreement", "max_redraws"),
)
COLOUR_KEYS = ("foreground", "background", "image", "mask", "jitter")
METADATA_KEYS = tuple(f.name for f in fields(Metadata))
GUIDANCE_KEYS = tuple(f.name for f in fields(Guidance))


def load_request(path: Path, *, root: Path | None = None) -> SetRequest:
    """Reads a request file.

    Args:
        path: at most 1 MiB of UTF-8 text.
        root: folder that the paths in the file are relative to and may not leave; None: the file's own.

    Raises:
        InputError: the file cannot be read or is too large.
        RequestError: not legal; names the group, the key and the nearest legal one.
    """
    try:
        if not path.is_file():
            raise InputError(f"request {path} cannot be read", note="not a file" if path.exists() else "no such file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise InputError(f"request {path} has more than {MAX_FILE_BYTES} bytes", hint="make several sets")
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 text ({error})"
        raise InputError(f"request {path} cannot be read: {why}") from error
    return parse_request(text, root=path.parent if root is None else root)


def parse_request(text: str, *, root: Path) -> SetRequest:
    """Reads the text of a request file; see :func:`load_request`."""
    top = _mapping(plain_data(text), "the request", TOP_KEYS, ("version", "groups"))
    version, groups = _whole(top, "version"), top["groups"]
    if version != FORMAT_VERSION:
        raise RequestError(f"request version {version}", note=f"this engine reads {FORMAT_VERSION}")
    if not isinstance(groups, list) or not 1 <= len(groups) <= MAX_GROUPS:
        is_what = f"{len(groups)} groups" if isinstance(groups, list) else f"groups is {shown(groups)}"
        raise RequestError(is_what, note=f"a list of 1 to {MAX_GROUPS} groups")
    parsed = []
    for number, group in enumerate(groups):
        try:
            parsed.append(_group(group, root))
        except RequestError as error:
            raise RequestError(f"group {number}: {error.what}", note=error.note, hint=error.hint) from error
    return SetRequest(tuple(parsed), _whole(top, "seed") if "seed" in top else 0)


def _group(raw: Any, root: Path) -> GroupRequest:
    group = _mapping(raw, "a group", GROUP_KEYS, ("morphology",))
    metadata = _mapping(group.get("metadata", {}), "metadata", METADATA_KEYS)
    height, width = _size(group["size"]) if "size" in group else (None, None)
    return GroupRequest(
        morphology=_morphology(group["morphology"], root),
        height_px=height,
        width_px=width,
        colour=_colour(group.get("colour", {}), root),
        metadata=Metadata(**{key: _text(metadata, key) for key in metadata}),
        guidance=_given(_guidance, group, "guidance"),
        count=_given(_whole, group, "count"),
        seed=_given(_whole, group, "seed"),
        steps=_given(_whole, group, "steps"),
        preset=_given(_text, group, "preset"),
        solver=_given(_text, group, "solver"),
        acceptance=acceptance_of(_given(_number, group, "min_agreement"), _given(_whole, group, "max_redraws")),
    )


def _guidance(group: dict[str, Any], key: str) -> Guidance:
    guidance = _mapping(group[key], key, GUIDANCE_KEYS)
    return Guidance(**{name: _number(guidance, name) for name in guidance})


def _morphology(raw: Any, root: Path) -> Morphology:
    if raw == "invent":
        return Invent()
    if isinstance(raw, dict) and "masks" in raw:
        return Masks(_path(_mapping(raw, "morphology", ("masks",)), "masks", root), root)
    if isinstance(raw, dict) and "layout" in raw:
        given = _mapping(raw, "morphology", ("layout", *LAYOUT_OPTIONS))
        read = {key: _whole if key in WHOLE_NUMBERS else _number for key in given if key != "layout"}
        return Layout(_text(given, "layout"), {key: reader(given, key) for key, reader in read.items()})
    raise RequestError(f"morphology is {shown(raw)}", note="legal: {masks: FOLDER}, {layout: KIND, ...} or invent")


def _colour(raw: Any, root: Path) -> ColourChoice:
    colour = _mapping(raw, "colour", COLOUR_KEYS)
    return ColourChoice(
        foreground=_given(_region, colour, "foreground"),
        background=_given(_region, colour, "background"),
        image=_path(colour, "image", root) if "image" in colour else None,
        mask=_path(colour, "mask", root) if "mask" in colour else None,
        jitter=_number(colour, "jitter") if "jitter" in colour else 0.0,
    )


def _region(colour: dict[str, Any], name: str) -> RegionColour:
    region = _mapping(colour[name], name, ("mean", "std"), ("mean", "std"))
    return RegionColour(_rgb(region, "mean"), _rgb(region, "std"))


def _mapping(raw: Any, what: str, legal: Collection[str], needed: Collection[str] = ()) -> dict[str, Any]:
    if not isinstance(raw, dict):
        is_what = "empty" if raw is None else shown(raw)
        raise RequestError(f"{what} is {is_what}", note=f"expected the keys {', '.join(sorted(legal))}")
    for key in raw:
        if key not in legal:
            raise RequestError(f"unknown key '{str(key)[:60]}' in {what}", note=nearest(str(key)[:60], legal))
    missing = sorted(set(needed) - set(raw))
    if missing:
        raise RequestError(f"{what} lacks {', '.join(missing)}")
    return raw


Value = TypeVar("Value")


def _given(read: Callable[[dict[str, Any], str], Value], raw: dict[str, Any], key: str) -> Value | None:
    """None where the key is absent; a key that says null is an error of its reader."""
    return read(raw, key) if key in raw else None


def _number(raw: dict[str, Any], key: str) -> float:
    value = raw[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
        raise RequestError(f"{key} is {shown(value)}", note="a finite number")
    return float(value)


def _whole(raw: dict[str, Any], key: str) -> int:
    """JSON knows one kind of number: 8.0 is whole."""
    value = raw[key]
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER
    if not number or int(value) != value:
        raise RequestError(f"{key} is {shown(value)}", note="a whole number")
    return int(value)


def _text(raw: dict[str, Any], key: str) -> str:
    value = raw[key]
    if not isinstance(value, str):
        raise RequestError(f"{key} is {shown(value)}", note="a text", hint="put it into quotes")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{key} is {shown(value)}", note=f"not Unicode text: {error}") from error
    return value


def _rgb(raw: dict[str, Any], key: str) -> RGB:
    value = raw[key]
    if not isinstance(value, list) or len(value) != 3:
        raise RequestError(f"{key} is {shown(value)}", note="three numbers: red, green, blue")
    red, green, blue = (_number({key: v}, key) for v in value)
    return red, green, blue


def _size(raw: Any) -> tuple[int, int]:
    sides = raw if isinstance(raw, list) else [raw, raw]
    if len(sides) != 2:
        raise RequestError(f"size is {shown(raw)}", note="a number of px, or [height, width]")
    return _whole({"size": sides[0]}, "size"), _whole({"size": sides[1]}, "size")


def _path(raw: dict[str, Any], key: str, root: Path) -> Path:
    value = _text(raw, key)
    if not value or "\0" in value:
        raise RequestError(f"{key} is {shown(value)}", note="a path")
    try:
        path = (root / value).resolve()
        inside = path.is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # too long, or a loop of links
        raise RequestError(f"{key} '{value[:120]}' is no path: {error}") from error
    if not inside:
        raise RequestError(
            f"{key} '{value[:120]}' leaves the folder of the request",
            note="paths are relative to the request file and stay below its folder",
            hint="move the data there, or name the folder it lies in with --root",
        )
    return path

"""The manifest of a bundle: what it holds, how it is verified, what it needs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from msdm_engine.conditions.colour import Colour, RegionColour
from msdm_engine.errors import BundleError, MsdmError, nearest

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: its size in bytes and SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a graph; a dimension is a number or the name of a dynamic one."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    """An ONNX graph: file, tensors, and the largest error against PyTorch that was measured at export."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """A named appearance of the training data: a description and its mean colour."""

    description: str
    tags: dict[str, str]
    colour: Colour
    tiles: int


@dataclass(frozen=True)
class Sampling:
    """Default sampling of the bundle: solver, steps, noise range, and the size and batch that it was made for."""

    solver: str
    steps: int
    sigma_min: float
    sigma_max: float
    rho: float
    size_px: int
    batch: int


@dataclass(frozen=True)
class Manifest:
    """The whole manifest; see the module's docstring.

    Args:
        stride: height and width must be multiples of this many pixels.
        text_tokens: T, the length that every text is padded to.
        n_classes: nucleus classes in the state; 0 for none.
        state_channels: C.
        model, training, data, tools: provenance, as exported; the engine only passes ``data['licence']`` on.
    """

    name: str
    stride: int
    text_tokens: int
    state_channels: int
    n_classes: int
    files: dict[str, FileEntry]
    graphs: dict[str, GraphSpec]
    presets: dict[str, Preset]
    sampling: Sampling
    model: dict[str, Any]
    training: dict[str, Any]
    data: dict[str, Any]
    tools: dict[str, str]

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        return json.dumps({"format": FORMAT_VERSION, **asdict(self)}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Reads a manifest.

        Raises:
            BundleError: not JSON, an unknown format version, or a key that is missing, unknown or of a wrong type.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise BundleError(f"{MANIFEST} is not JSON: {error}", hint="export the bundle again") from error
        if not isinstance(raw, dict) or raw.get("format") != FORMAT_VERSION:
            found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
            raise BundleError(
                f"{MANIFEST} has the unknown format version {found!r}",
                note=f"this engine reads version {FORMAT_VERSION}",
                hint="export the bundle with this version of msdm, or use the engine that made it",
            )
        del raw["format"]
        _check_keys(raw)
        try:
            return Manifest(
                **{
                    **raw,
                    "files": {name: FileEntry(**entry) for name, entry in raw["files"].items()},
                    "graphs": {name: _graph(entry) for name, entry in raw["graphs"].items()},
                    "presets": {name: _preset(entry) for name, entry in raw["presets"].items()},
                    "sampling": Sampling(**raw["sampling"]),
                }
            )
        except (TypeError, KeyError, AttributeError, MsdmError) as error:
            raise BundleError(f"{MANIFEST} is malformed: {error}", hint="export the bundle again") from error


def _check_keys(raw: dict[str, Any]) -> None:
    legal = {f.name for f in fields(Manifest)}
    for key in raw:
        if key not in legal:
            raise BundleError(f"{MANIFEST} has the unknown key '{key}'", note=nearest(key, legal))
    missing = legal - set(raw)
    if missing:
        raise BundleError(f"{MANIFEST} lacks the key(s) {', '.join(sorted(missing))}", hint="export the bundle again")


def _graph(entry: dict[str, Any]) -> GraphSpec:
    specs = {
        side: tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in entry[side])
        for side in ("inputs", "outputs")
    }
    return GraphSpec(entry["file"], specs["inputs"], specs["outputs"], entry["parity"])


def _preset(entry: dict[str, Any]) -> Preset:
    regions = {
        name: RegionColour(tuple(value["mean"]), tuple(value["std"])) if value else None
        for name, value in entry["colour"].items()
    }
    return Preset(entry["description"], entry["tags"], Colour(**regions), entry["tiles"])

"""From what a user asks for to the conditions of each pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msdm_engine.conditions.colour import Colour, colour_from_image
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.errors import InputError, RequestError, nearest
from msdm_engine.layouts import LAYOUTS, LayoutRequest, draw_layout
from msdm_engine.manifest import Manifest, Preset
from msdm_engine.masks import mask_files, read_instances, read_rgb
from msdm_engine.pairs import PairRequest

#: Median nuclear area in px of tiles tagged with this nuclear size; a layout without --area follows its preset.
AREA_OF_SIZE = {"small": 200.0, "large": 520.0}

#: Architecture of the training data that a layout belongs to, where the names differ.
ARCHITECTURE_OF_LAYOUT = {"gland": "columnar"}


@dataclass(frozen=True)
class Appearance:
    """Colour and text of a whole set, and what they came from."""

    colour: Colour
    metadata: Metadata
    preset: str | None = None
    tags: dict[str, str] | None = None


def choose_preset(manifest: Manifest, name: str) -> Preset:
    """The preset of that name; an unknown name is an error with the legal ones."""
    if name not in manifest.presets:
        raise RequestError(f"unknown preset '{name}'", note=nearest(name, manifest.presets))
    return manifest.presets[name]


def preset_for_layout(manifest: Manifest, kind: str) -> str | None:
    """The preset with the most training tiles of the layout's architecture, None if the bundle has none."""
    architecture = ARCHITECTURE_OF_LAYOUT.get(kind, kind)
    fitting = [name for name, preset in manifest.presets.items() if preset.tags.get("architecture") == architecture]
    return max(fitting, key=lambda name: manifest.presets[name].tiles, default=None)


def appearance(
    manifest: Manifest,
    *,
    preset: str | None = None,
    metadata: Metadata | None = None,
    colour_image: Path | None = None,
    colour_mask: Path | None = None,
) -> Appearance:
    """Joins a preset with what overrides it: any metadata field given, and a picture with its mask for colour."""
    chosen = choose_preset(manifest, preset) if preset else None
    colour = chosen.colour if chosen else Colour()
    given = metadata or Metadata()
    if chosen and not given.description:
        given = Metadata(given.assay, given.indication, chosen.description)
    if (colour_image is None) != (colour_mask is None):
        raise RequestError(
            "colour from a picture needs the picture and its mask",
            note="foreground and background are told apart by the mask",
            hint="give both --colour-from IMAGE and --colour-mask MASK",
        )
    if colour_image is not None and colour_mask is not None:
        image, instances = read_rgb(colour_image), read_instances(colour_mask)
        if image.shape[:2] != instances.shape:
            raise InputError(f"{colour_image} is {image.shape[:2]} px, its mask {colour_mask} {instances.shape}")
        colour = colour_from_image(image, instances)
    return Appearance(colour, given, preset, chosen.tags if chosen else None)


def check_layout(kind: str) -> None:
    """Raises RequestError for an unknown layout."""
    if kind not in LAYOUTS:
        raise RequestError(f"unknown layout '{kind}'", note=nearest(kind, LAYOUTS))


def pairs_from_masks(folder: Path, count: int | None, seed: int, look: Appearance) -> Iterator[PairRequest]:
    """A pair for each mask of a folder, in the order of names; a larger count goes round again with other noise.

    Every mask is read once before the first pair, so that an unreadable one is found before anything is made.
    """
    files = mask_files(folder)
    for path in files:
        read_instances(path)

    def generate() -> Iterator[PairRequest]:
        for index in range(len(files) if count is None else count):
            path = files[index % len(files)]
            yield _pair(index, seed, read_instances(path), look, f"mask {path.name}")

    return generate()


def pairs_from_layout(
    kind: str, count: int, size_px: int, seed: int, look: Appearance, *, area_px: float | None = None
) -> Iterator[PairRequest]:
    """Pairs on drawn layouts; the nuclear area follows the preset's tag unless it is given."""
    check_layout(kind)
    area = area_px or AREA_OF_SIZE.get((look.tags or {}).get("nuclear_size", ""))

    def draw(index: int) -> np.ndarray:
        return draw_layout(LayoutRequest(kind, size_px, size_px, seed=seed, index=index, area_px=area))

    draw(0)  # a value out of range is an error now, not after the first batch
    return (_pair(index, seed, draw(index), look, f"layout {kind}") for index in range(count))


def pairs_invented(count: int, size_px: int, seed: int, look: Appearance) -> Iterator[PairRequest]:
    """Pairs whose layout the model invents."""
    return (
        PairRequest(index, seed, size_px, size_px, colour=look.colour, metadata=look.metadata) for index in range(count)
    )


def _pair(index: int, seed: int, instances: np.ndarray, look: Appearance, morphology: str) -> PairRequest:
    height, width = instances.shape
    return PairRequest(index, seed, height, width, instances, look.colour, look.metadata, morphology)

"""From a request to the conditions of each pair."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from msdm_engine.bundle.manifest import Manifest, Preset, Sampling
from msdm_engine.conditions.colour import Colour, RegionColour, colour_from_image
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.critic import Acceptance
from msdm_engine.errors import InputError, RequestError, nearest
from msdm_engine.inputs.mask_findings import MaskFindings, findings_of
from msdm_engine.inputs.masks import mask_files, read_instances, read_labels, read_rgb, renumbered
from msdm_engine.layouts import LayoutRequest, draw_layout
from msdm_engine.pairs import PairRequest
from msdm_engine.pipeline.batches import gathered
from msdm_engine.redraw import check_has_critic
from msdm_engine.requests.request import ColourChoice, GroupRequest, Layout, Masks, SetRequest, check_total
from msdm_engine.sampling.guidance import Guidance
from msdm_engine.sampling.noise import uniform

#: Median nuclear area in px of tiles tagged with this nuclear size; a layout without an area follows its preset.
AREA_OF_SIZE = {"small": 200.0, "large": 520.0}

#: Architecture of the training data that a layout belongs to, where the names differ.
ARCHITECTURE_OF_LAYOUT = {"gland": "columnar"}

#: Pixels in one batch, guidance branches included: 8 pictures of 4096 x 4096, about 13 GB of state and noise.
MAX_BATCH_PX = 2**27

#: How many maps are drawn for a pair before a request that finds no room is an error: near the most nuclei that a
#: layout holds, one map in some hundreds does not work out, and a long set must not stop at it.
LAYOUT_ATTEMPTS = 8

Size = tuple[int, int]

#: ``stream`` of :func:`msdm_engine.sampling.noise.uniform` that colour jitter draws from.
JITTER_STREAM = 1


@dataclass(frozen=True)
class Appearance:
    """Colour and text of a group, and the preset that they come from."""

    colour: Colour
    metadata: Metadata
    preset: str | None
    nuclear_size: str | None


@dataclass(frozen=True)
class ComposedGroup:
    """A group whose every choice is made and checked.

    Args:
        first: number of its first pair in the set.
        count: its pairs.
        look: their colour (before jitter) and text.
        work: for each (height, width) in px, how many pairs have it, and how many are computed: short batches are
            filled up.
        masks_sha256: of the names and labels of the masks that it follows; None: it follows no masks.
        findings: what is unusual in those masks.
        acceptance: which of its pairs are drawn again; None: none.
        pair: the conditions of pair ``first <= index < first + count``.
    """

    first: int
    count: int
    sampling: Sampling
    guidance: Guidance
    look: Appearance
    work: dict[Size, tuple[int, int]]
    masks_sha256: str | None
    findings: MaskFindings
    acceptance: Acceptance | None
    pair: Callable[[int], PairRequest]

    def pairs(self, done: Collection[int] = ()) -> Iterator[PairRequest]:
        """The pairs in order, without those whose number is in ``done``."""
        return (self.pair(i) for i in range(self.first, self.first + self.count) if i not in done)


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


def appearance(manifest: Manifest, group: GroupRequest) -> Appearance:
    """Joins the preset with what the group gives over it."""
    name = group.preset
    if name is None and isinstance(group.morphology, Layout):
        name = preset_for_layout(manifest, group.morphology.kind)
    preset = choose_preset(manifest, name) if name else None
    metadata = group.metadata
    if preset and not metadata.description:
        metadata = replace(metadata, description=preset.description)
    colour = _chosen_colour(group.colour, preset.colour if preset else Colour())
    if group.colour.jitter and colour == Colour():
        raise RequestError(
            "colour jitter without a colour", note="the model chooses the colour", hint="give a preset or a colour"
        )
    return Appearance(colour, metadata, name, preset.tags.get("nuclear_size") if preset else None)


def _chosen_colour(choice: ColourChoice, default: Colour) -> Colour:
    if choice.image is not None and choice.mask is not None:
        image, instances = read_rgb(choice.image), read_instances(choice.mask)
        if image.shape[:2] != instances.shape:
            raise InputError(f"{choice.image} is {image.shape[:2]} px, its mask {choice.mask} {instances.shape}")
        return colour_from_image(image, instances)
    return Colour(choice.foreground or default.foreground, choice.background or default.background)


def jittered(colour: Colour, amount: float, seed: int, index: int) -> Colour:
    """Moves each mean by up to ``amount`` (8-bit units), as (seed, index) decide."""
    if amount == 0:
        return colour
    shifts = (2 * uniform(seed, index, JITTER_STREAM, 6) - 1) * amount

    def move(region: RegionColour | None, by: np.ndarray) -> RegionColour | None:
        if region is None:
            return None
        red, green, blue = (float(v) for v in np.clip(np.asarray(region.mean) + by, 0, 255))
        return RegionColour((red, green, blue), region.std)

    return Colour(move(colour.foreground, shifts[:3]), move(colour.background, shifts[3:]))


def compose(manifest: Manifest, request: SetRequest, batch: int | None = None) -> list[ComposedGroup]:
    """Makes and checks every choice of a request, so that what cannot work fails before anything is made.

    Args:
        batch: pairs at once; None: the bundle's own.

    Raises:
        RequestError, InputError: names the group.
    """
    groups, first = [], 0
    for number, group in enumerate(request.groups):
        try:
            composed = _compose_group(manifest, group, request.seed, first, batch)
        except (RequestError, InputError) as error:
            if len(request.groups) == 1:
                raise
            raise type(error)(f"group {number}: {error.what}", note=error.note, hint=error.hint) from error
        groups.append(composed)
        first += composed.count
    check_total(first)
    return groups


def _compose_group(
    manifest: Manifest, group: GroupRequest, set_seed: int, first: int, batch: int | None
) -> ComposedGroup:
    if group.acceptance is not None:
        check_has_critic(manifest)
    seed = set_seed if group.seed is None else group.seed
    look = appearance(manifest, group)
    default = manifest.sampling
    sampling = default.changed(steps=group.steps, solver=group.solver, batch=batch)
    height, width = group.height_px or default.size_px, group.width_px or default.size_px
    morphology, count, masks_sha256, findings = group.morphology, group.count or 0, None, MaskFindings()
    draw: Drawer | None = None
    sizes: Sequence[Size] = [(height, width)]
    if isinstance(morphology, Masks):
        files = _files_inside(morphology)
        count = group.count or len(files)
        sizes, masks_sha256, findings = _read_masks(files, count)
        draw, told = _mask_drawer(files, first), "mask"
    elif isinstance(morphology, Layout):
        draw, told = _layout_drawer(morphology, height, width, seed, look), f"layout {morphology.kind}"
        draw(first)  # a value out of range is an error now, not after the first batch
    else:
        told = "invented"
    work = _work(sizes, count, sampling.batch)
    guidance = manifest.guidance if group.guidance is None else group.guidance
    _check_batch(work, sampling.batch, len(guidance.branches()))

    def pair(index: int) -> PairRequest:
        colour = jittered(look.colour, group.colour.jitter, seed, index)
        if draw is None:
            return PairRequest(index, seed, height, width, None, colour, look.metadata, told)
        instances, name = draw(index)
        return PairRequest(index, seed, *_shape(instances), instances, colour, look.metadata, f"{told}{name}")

    return ComposedGroup(first, count, sampling, guidance, look, work, masks_sha256, findings, group.acceptance, pair)


def _work(sizes: Sequence[Size], count: int, batch: int) -> dict[Size, tuple[int, int]]:
    """Pairs, and pairs computed, of each size, where ``count`` pairs have these sizes in turns."""
    if len(set(sizes[:count])) == 1:  # ten million pairs are not gone through one by one
        return {sizes[0]: (count, -(-count // batch) * batch)}
    work: dict[Size, tuple[int, int]] = {}
    for size, pairs in gathered(islice(cycle(sizes), count), batch):
        before, computed = work.get(size, (0, 0))
        work[size] = before + pairs, computed + batch
    return work


def _check_batch(work: dict[Size, tuple[int, int]], batch: int, branches: int) -> None:
    for height, width in work:
        if batch * branches * height * width > MAX_BATCH_PX:
            raise RequestError(
                f"a batch of {batch} pictures of {height} x {width} px with {branches} guidance branch(es)",
                note=f"at most {MAX_BATCH_PX} pixels at once",
                hint="give a smaller --batch",
            )


Drawer = Callable[[int], tuple[np.ndarray, str]]


def _shape(instances: np.ndarray) -> Size:
    height, width = instances.shape
    return height, width


def _files_inside(masks: Masks) -> list[Path]:
    files = mask_files(masks.folder)
    if masks.root is None:
        return files
    for path in files:
        try:
            inside = path.resolve().is_relative_to(masks.root.resolve())
        except (OSError, RuntimeError) as error:  # a loop of links
            raise InputError(f"mask {path} cannot be read: {error}") from error
        if not inside:
            raise InputError(
                f"mask {path} is a link that leaves the folder of the request",
                hint="copy the file itself, or name the folder it lies in with --root",
            )
    return files


def _read_masks(files: list[Path], count: int) -> tuple[list[Size], str, MaskFindings]:
    """Reads every mask once, so that an unreadable one is found early: sizes, SHA-256, what is unusual in them."""
    sizes, digest, findings = [], hashlib.sha256(), MaskFindings()
    for path in files:
        labels = read_labels(path)
        instances = renumbered(path, labels)
        sizes.append(_shape(instances))
        if len(sizes) <= count:  # the others are checked, and not followed
            findings += findings_of(labels, instances)
            digest.update(repr((path.name, instances.shape)).encode())
            digest.update(instances.astype("<u2").tobytes())
    return sizes, digest.hexdigest(), findings


def _mask_drawer(files: list[Path], first: int) -> Drawer:
    def draw(index: int) -> tuple[np.ndarray, str]:
        path = files[(index - first) % len(files)]
        return read_instances(path), f" {path.name}"

    return draw


def _layout_drawer(layout: Layout, height: int, width: int, seed: int, look: Appearance) -> Drawer:
    options = dict(layout.options)
    if "area_px" not in options and look.nuclear_size in AREA_OF_SIZE:
        # A default, so it gives way to a small picture: a layout takes nuclei up to an eighth of its area.
        options["area_px"] = min(AREA_OF_SIZE[look.nuclear_size], height * width / 12)

    asked = LayoutRequest.from_options(kind=layout.kind, height_px=height, width_px=width, seed=seed, **options)

    def attempt(index: int, number: int) -> tuple[np.ndarray, str]:
        # Pair numbers end below 2^32, so no attempt draws the map of another pair.
        drawn = draw_layout(replace(asked, index=index + (number << 32)))
        return drawn, f", attempt {number + 1}" if number else ""

    def draw(index: int) -> tuple[np.ndarray, str]:
        for number in range(LAYOUT_ATTEMPTS - 1):
            with suppress(RequestError):  # a dense map found no room for its last nuclei; the next stream may
                return attempt(index, number)
        return attempt(index, LAYOUT_ATTEMPTS - 1)

    return draw

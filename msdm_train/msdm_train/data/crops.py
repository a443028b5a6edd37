"""Windows of real fields, and the request that each lends its conditions to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdm_engine.conditions.colour import colour_from_image
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.pairs import PairRequest
from msdm_train.data.pack import Pack
from msdm_train.data.reader import Region


@dataclass(frozen=True)
class Crop:
    """A real crop: [S, S, 3] uint8 picture, [S, S] uint16 instance map, and where it was taken."""

    field: str
    y: int
    x: int
    region: Region
    image: np.ndarray
    instances: np.ndarray


def group_of(crop: Crop) -> str:
    """The tags of a crop's region, joined: ``lilac-columnar-large``; ``untagged`` without tags."""
    return "-".join(crop.region.tags.values()) or "untagged"


def windows(pack: Pack, split: str, side_px: int, stride_px: int | None = None) -> list[Crop]:
    """All windows of a split in reading order, each inside one region; none if none fits.

    Args:
        stride_px: distance of neighbouring windows; None: ``side_px``, so that they are disjoint.
    """
    stride = stride_px or side_px
    return [
        Crop(field.id, y, x, region, *pack.window(field.id, y, x, y + side_px, x + side_px))
        for field in pack.split(split)
        for region in field.regions
        for y in range(region.y0, region.y1 - side_px + 1, stride)
        for x in range(region.x0, region.x1 - side_px + 1, stride)
    ]


def request_of(crop: Crop, index: int, seed: int) -> PairRequest:
    """Asks for a pair under all conditions of a real crop: its mask, its own colour, its metadata."""
    height, width = crop.instances.shape
    return PairRequest(
        index,
        seed,
        height_px=height,
        width_px=width,
        instances=crop.instances,
        colour=colour_from_image(crop.image, crop.instances),
        metadata=Metadata(crop.region.assay, crop.region.indication, crop.region.description),
        morphology=f"field {crop.field}",
    )

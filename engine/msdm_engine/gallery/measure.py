"""What the gallery shows of one pair beyond its manifest line: thumbnail, outlines, morphology and colour."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from msdm_engine.conditions.colour import Colour, RegionColour, colour_from_image
from msdm_engine.errors import InputError
from msdm_engine.gallery.manifest import Record
from msdm_engine.gallery.outlines import outline_text
from msdm_engine.inputs.masks import read_instances, read_rgb
from msdm_engine.layouts.statistics import nuclei_of
from msdm_engine.output.records import MANIFEST_FILE

#: Bins of the colour histograms, over 0 to 255.
COLOUR_BINS = 32
WEBP_QUALITY = 75
#: What all thumbnails of a page may take together, and what a pixel of one takes: 0.15 to 0.3 bytes measured on
#: generated pairs of 64 to 256 px at this quality.
THUMBNAIL_BUDGET_BYTES = 24 * 2**20
THUMBNAIL_BYTES_PER_PX = 0.25
MIN_THUMBNAIL_PX, MAX_THUMBNAIL_PX = 48, 256


@dataclass(frozen=True, eq=False)
class Measured:
    """One pair, measured; equal only to itself, since it holds arrays.

    Args:
        thumbnail: WebP, base64.
        outlines: see :mod:`msdm_engine.gallery.outlines`.
        nuclei: number of nuclei in the mask, those cut by the border included.
        area_px, aspect_ratio: [n] of whole nuclei, those that the border does not cut.
        colour: measured.
        colour_difference: CIE 1976 colour difference (Delta E) between the mean colour asked for and measured, of
            the region where it is larger; None where no colour was asked for.
        colour_shares: [2, 3, COLOUR_BINS] float in 0..1: share of the foreground (background) pixels in each
            bin of red, green, blue; zero for an empty region.
    """

    thumbnail: str
    outlines: str
    nuclei: int
    area_px: NDArray[np.int64]
    aspect_ratio: NDArray[np.float64]
    colour: Colour
    colour_difference: float | None
    colour_shares: NDArray[np.float64]


def thumbnail_px(count: int) -> int:
    """Longest side of the thumbnails of ``count`` pairs, so that all together keep to their budget."""
    side = math.sqrt(THUMBNAIL_BUDGET_BYTES / (count * THUMBNAIL_BYTES_PER_PX))
    return max(MIN_THUMBNAIL_PX, min(MAX_THUMBNAIL_PX, int(side) // 16 * 16))


def measure(folder: Path, record: Record, side_px: int) -> Measured:
    """Reads a pair and measures it.

    Args:
        side_px: longest side of the thumbnail; a smaller picture is not enlarged.

    Raises:
        InputError: a file is missing or damaged, or the sizes of image, mask and manifest differ.
    """
    image, instances = read_rgb(folder / record.image), read_instances(folder / record.mask)
    expected = (record.height_px, record.width_px)
    for name, found in ((record.image, image.shape[:2]), (record.mask, instances.shape)):
        if found != expected:
            raise InputError(
                f"{folder / name} is {found[0]} x {found[1]} px",
                note=f"line {record.line} of {MANIFEST_FILE} says {expected[0]} x {expected[1]} px",
                hint="restore the file, or generate the set again",
            )
    nuclei = nuclei_of(instances)
    colour = colour_from_image(image, instances)
    return Measured(
        thumbnail=_thumbnail(image, side_px),
        outlines=outline_text(instances),
        nuclei=len(nuclei.area_px),
        area_px=nuclei.area_px[~nuclei.cut],
        aspect_ratio=nuclei.aspect_ratio[~nuclei.cut],
        colour=colour,
        colour_difference=colour_difference(record.colour, colour),
        colour_shares=_colour_shares(image, instances > 0),
    )


def colour_difference(asked: Colour, measured: Colour) -> float | None:
    """CIE 1976 Delta E of the mean colours (sRGB, D65), the larger of both regions; None where none is known."""
    regions = ((asked.foreground, measured.foreground), (asked.background, measured.background))
    found = [float(np.linalg.norm(_lab(a) - _lab(b))) for a, b in regions if a is not None and b is not None]
    return max(found, default=None)


def _lab(colour: RegionColour) -> NDArray[np.float64]:
    rgb = np.array(colour.mean, np.float32).reshape(1, 1, 3) / 255
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).reshape(3).astype(np.float64)


def _thumbnail(image: NDArray[np.uint8], side_px: int) -> str:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    scale = side_px / max(image.shape[:2])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    ok, encoded = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])
    if not ok:
        raise InputError(f"OpenCV {cv2.__version__} cannot encode WebP", hint="pip install opencv-python-headless")
    return base64.b64encode(encoded.tobytes()).decode("ascii")


def _colour_shares(image: NDArray[np.uint8], foreground: NDArray[np.bool_]) -> NDArray[np.float64]:
    shares = np.zeros((2, 3, COLOUR_BINS))
    for region, inside in enumerate((foreground, ~foreground)):
        pixels = image[inside] // (256 // COLOUR_BINS)
        for channel in range(3):
            counts = np.bincount(pixels[:, channel], minlength=COLOUR_BINS)
            shares[region, channel] = counts / max(1, len(pixels))
    return shares

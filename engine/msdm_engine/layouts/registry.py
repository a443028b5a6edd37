"""The layouts by name, and the one function that draws any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import RequestError
from msdm_engine.layouts.canvas import Canvas
from msdm_engine.layouts.epithelium import draw_columnar, draw_gland
from msdm_engine.layouts.outlines import OutlineBank, default_bank
from msdm_engine.layouts.request import LayoutRequest
from msdm_engine.layouts.scatter import draw_round
from msdm_engine.layouts.scene import Scene
from msdm_engine.layouts.spindle import draw_spindle


@dataclass(frozen=True)
class Layout:
    """A kind of layout: a sentence for users, and the function that draws it."""

    summary: str
    draw: Callable[[Scene], None]


LAYOUTS: Mapping[str, Layout] = {
    "columnar": Layout("palisades of elongated nuclei, long axes across, between lumen and stroma", draw_columnar),
    "round": Layout("round and oval nuclei, scattered to clustered and crowded", draw_round),
    "spindle": Layout("elongated nuclei in bundles along a smooth flow", draw_spindle),
    "gland": Layout("rings of columnar nuclei around lumens, with stroma around them", draw_gland),
}


def draw_layout(request: LayoutRequest, outlines: OutlineBank | None = None) -> NDArray[np.uint16]:
    """Draws an instance map: no nuclei overlap, labels run from 1 without gaps, each nucleus is one piece.

    The map is a function of the request and the outlines alone (Philox keyed by seed and index).

    Args:
        outlines: to draw nuclei from; None takes the bank that ships with the engine.

    Returns:
        [height_px, width_px] uint16, 0 is background.

    Raises:
        RequestError: fewer nuclei than asked for found room, or more than 16-bit labels can name.
        BundleError: the shipped bank is missing or damaged.
    """
    return draw_canvas(request, outlines).labels


def draw_canvas(request: LayoutRequest, outlines: OutlineBank | None = None) -> Canvas:
    """As :func:`draw_layout`, and also what was asked of each nucleus (role, place, direction)."""
    canvas = Canvas.empty(request.height_px, request.width_px)
    draw_into(canvas, request, stream(request.seed, request.index), outlines)
    return canvas


def stream(seed: int, index: int, purpose: int = 0) -> np.random.Generator:
    """Random numbers (Philox keyed by seed and index); those of different purposes never overlap."""
    key = np.array([seed, index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, purpose], np.uint64)))


def draw_into(
    canvas: Canvas, request: LayoutRequest, rng: np.random.Generator, outlines: OutlineBank | None = None
) -> None:
    """Draws a request onto an empty canvas of its size, in the canvas's region and around foreign nuclei.

    Raises:
        RequestError: fewer nuclei than asked for found room.
    """
    bank = default_bank() if outlines is None else outlines
    LAYOUTS[request.kind].draw(Scene(request, bank, rng, canvas))
    if request.wanted is not None and canvas.count != request.wanted:
        raise RequestError(
            f"only {canvas.count} of {request.wanted} nuclei of {request.median_area_px:g} px found room in layout "
            f"'{request.kind}', seed {request.seed}, index {request.index}",
            hint="ask for fewer, smaller or less elongated nuclei, or try another seed",
        )

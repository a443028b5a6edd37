"""What every layout draws with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdm_engine.layouts.canvas import Canvas
from msdm_engine.layouts.outlines import OutlineBank
from msdm_engine.layouts.request import LayoutRequest


@dataclass(frozen=True)
class Scene:
    """A request, the outlines and the random stream to draw it with, and the map it is drawn on."""

    request: LayoutRequest
    bank: OutlineBank
    rng: np.random.Generator
    canvas: Canvas

"""Layout ``spindle``: elongated nuclei in bundles along a smooth flow."""

from __future__ import annotations

import math

import numpy as np

from msdm_engine.layouts.fields import Grid, flow_angle, smooth_noise, stream_function
from msdm_engine.layouts.outlines import shapes_from_bank
from msdm_engine.layouts.scatter import Scatter, scatter
from msdm_engine.layouts.scene import Scene

#: Standard deviation of a nucleus against the flow.
ANGLE_JITTER = math.radians(8)

#: Outlines of other architectures are drawn too from this aspect ratio on: the train part has 34 of spindle tiles.
ELONGATED = 2.2


def draw_spindle(scene: Scene) -> None:
    """Loose fibres (crowding 0) to dense bundles (1), long axes along the flow."""
    request, rng = scene.request, scene.rng
    length, breadth = request.length_px, request.breadth_px
    grid = Grid(request.height_px, request.width_px, max(2.0, breadth / 2), length)
    angle = rng.random() * math.pi if request.orientation_deg is None else math.radians(request.orientation_deg)
    stream = stream_function(rng, grid, angle, 12 * length, bend=0.30)
    direction = flow_angle(stream)
    # Bundles: density varies quickly across the flow and slowly along it.
    bundle = 2.6 * length
    knots = rng.standard_normal(int(np.ptp(stream) / bundle) + 4)
    across = np.interp((stream - stream.min()) / bundle, np.arange(len(knots)), knots)
    weight = np.exp(0.9 * across + 0.5 * smooth_noise(rng, grid, 8 * length)) * scene.open_cells(grid)

    coverage = 0.06 + 0.16 * request.crowding
    count = request.wanted or max(1, round(request.count_at(coverage / 1.1) * scene.share))
    how = Scatter(
        shapes_from_bank(scene.bank, "spindle", elongated_from_others=ELONGATED),
        request.median_area_px,
        request.log_area_spread,
        request.median_aspect_ratio,
        lambda points: grid.sample(direction, points) + ANGLE_JITTER * rng.standard_normal(len(points)),
        cluster=0.35 + 0.35 * request.crowding,
        touching=0.4 + 0.55 * request.crowding,
        # From side by side to end to end, for aspect ratios around 3.
        reach=(1.2, 3.2),
    )
    scatter(scene.canvas, rng, grid, weight, how, count)

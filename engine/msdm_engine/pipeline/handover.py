"""What the host makes of a finished batch: checks, pictures and masks, the critic's input and what it saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from msdm_engine.conditions.decode import instances_from_maps
from msdm_engine.contract import CONDITIONER, CRITIC, DENOISER, IMAGE_CHANNELS, MAP_CHANNELS
from msdm_engine.critic import Seen, image_from_pictures
from msdm_engine.pairs import Pair, PairRequest
from msdm_engine.pipeline.checks import check_finite, finite_rows
from msdm_engine.pipeline.padding import Padding
from msdm_engine.pipeline.setting import Setting


def check_results(setting: Setting, requests: Sequence[PairRequest], results: Mapping[str, np.ndarray]) -> None:
    """Raises NumericsError for the first value that is not finite, in the order in which graphs gave them.

    Args:
        results: ``final`` [B, C, H, W]; where each step was checked ``context_finite`` [outputs, G B] and ``finite``
            [steps, 2, B], else the last state tells alone: a value that is not finite does not leave the state.
    """
    if "finite" in results:
        filled = [*requests, *[requests[-1]] * (setting.batch - len(requests))]
        for finite in results["context_finite"]:
            check_finite(CONDITIONER, finite, filled * len(setting.own_branches), "before the first step")
        for number, both in enumerate(results["finite"], start=1):
            where = f"step {number} of {len(setting.rows)} (noise level {setting.rows[number - 1][0]:.4g})"
            for finite in both:
                check_finite(DENOISER, finite, requests, where)
    else:
        where = f"in one of {len(setting.rows)} steps"
        check_finite(DENOISER, finite_rows(results["final"]), requests, where)


def pairs_of(setting: Setting, requests: Sequence[PairRequest], final: np.ndarray) -> list[Pair]:
    """States [B, C, H, W] -> pictures and masks, cropped to the size asked for."""
    cropped = final[:, :, : setting.height_px, : setting.width_px]
    return [_pair(request, state) for request, state in zip(requests, cropped, strict=False)]


def pictures_from_states(states: np.ndarray) -> np.ndarray:
    """RGB of finite states: [..., C, H, W], data in [-1, 1] -> [..., H, W, 3] uint8."""
    rgb = np.moveaxis(states[..., : len(IMAGE_CHANNELS), :, :], -3, -1)
    return np.clip(np.rint((rgb + 1) * 127.5), 0, 255).astype(np.uint8)


def _pair(request: PairRequest, state: np.ndarray) -> Pair:
    image = pictures_from_states(state)
    instances = request.instances
    if instances is None:
        maps = state[len(IMAGE_CHANNELS) : len(IMAGE_CHANNELS) + len(MAP_CHANNELS)]
        instances = instances_from_maps(np.clip(maps, -1, 1))
    return Pair(request, image, instances.astype(np.uint16))


def write_pictures(pairs: Sequence[Pair], stride: int, into: np.ndarray) -> None:
    """Input of the critic, [B, 3, H, W]: the finished pictures; a short batch is filled up as for sampling."""
    height, width = pairs[0].image.shape[:2]
    pictures = np.stack([pair.image for pair in (*pairs, *[pairs[-1]] * (len(into) - len(pairs)))])
    into[...] = image_from_pictures(Padding.of(height, width, stride).grow_pictures(pictures))


def judged(pairs: Sequence[Pair], seen: np.ndarray) -> list[Pair]:
    """The pairs with what the critic sees in them, [B, 3, H, W].

    Raises:
        NumericsError: a value is not finite.
    """
    check_finite(CRITIC, finite_rows(seen), [pair.request for pair in pairs], "after the last step")
    height, width = pairs[0].image.shape[:2]
    return [
        replace(pair, seen=Seen(maps[:, :height, :width].copy(), pair.instances))
        for pair, maps in zip(pairs, seen, strict=False)
    ]

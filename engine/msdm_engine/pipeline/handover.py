"""What the host makes of a finished batch: pictures and masks, the critic's input and what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from msdm_engine.conditions.decode import instances_from_maps
from msdm_engine.contract import CRITIC, IMAGE_CHANNELS, MAP_CHANNELS
from msdm_engine.critic import Seen, image_from_pictures
from msdm_engine.pairs import Pair, PairRequest
from msdm_engine.pipeline.batches import Placed
from msdm_engine.pipeline.checks import check_finite, finite_rows
from msdm_engine.pipeline.flight import Flight
from msdm_engine.pipeline.padding import Padding
from msdm_engine.pipeline.setting import Setting


class AsPairs:
    """Pairs on the host, with their places. Fulfils :class:`~msdm_engine.pipeline.flight.HandOver`.

    Args:
        batch: pairs in a batch where memory does not halve it.
        critic_stride: of the bundle's critic in px; None: it is not asked.
    """

    def __init__(self, batch: int, critic_stride: int | None) -> None:
        self._batch, self._stride = batch, critic_stride

    @property
    def asks_critic(self) -> bool:
        """See the contract."""
        return self._stride is not None

    def finish(self, flight: Flight[Placed]) -> None:
        """See the contract."""
        lane, batch = flight.order.lane, flight.batch
        slot = lane.slots[flight.slot]
        pairs = pairs_of(lane.setting, batch.requests, slot.final.host.array())
        if batch.size != self._batch:
            pairs = [replace(pair, halved_batch=batch.size) for pair in pairs]
        if self._stride is not None:
            assert slot.picture is not None  # of a lane with a critic
            write_pictures(pairs, self._stride, slot.picture.host.array())
            flight.order.judge(flight.slot)
        flight.made = list(zip(batch.places, pairs, strict=True))

    def judge(self, flight: Flight[Placed]) -> None:
        """See the contract."""
        seen = flight.order.lane.slots[flight.slot].seen
        assert seen is not None  # of a lane with a critic
        pairs = judged([pair for _, pair in flight.made], seen.host.array())
        flight.made = list(zip(flight.batch.places, pairs, strict=True))

    def taken(self, flight: Flight[Placed]) -> None:
        """Pairs are copies: they are the caller's own."""


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

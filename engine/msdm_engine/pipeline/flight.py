"""A batch under way, and what is made of it when it has finished."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from msdm_engine.pipeline.batches import Batch
from msdm_engine.pipeline.order import Order

Made = TypeVar("Made")


@dataclass
class Flight(Generic[Made]):
    """A batch in a slot of a lane.

    Args:
        made: what is handed to the caller; empty until the batch has finished.
    """

    batch: Batch
    order: Order
    slot: int
    made: list[Made] = field(default_factory=list)


class HandOver(Protocol[Made]):
    """What the host makes of a finished batch; all of it in the caller's thread."""

    @property
    def asks_critic(self) -> bool:
        """Whether finished pictures are shown to the critic."""
        ...

    def finish(self, flight: Flight[Made]) -> None:
        """Fills ``made`` from a last state that was checked, and shows the pictures to the critic if it is asked."""
        ...

    def judge(self, flight: Flight[Made]) -> None:
        """Adds what the critic saw, where it is asked; the host has waited for it."""
        ...

    def taken(self, flight: Flight[Made]) -> None:
        """The caller has all of ``made`` and asks for more. Raises DeviceError where it may not."""
        ...

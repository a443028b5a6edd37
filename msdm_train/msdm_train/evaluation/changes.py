"""Requests with one condition dropped or exchanged, for the section on control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from msdm_engine.conditions.colour import Colour, colour_from_image
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.pairs import PairRequest
from msdm_train.data.crops import Crop
from msdm_train.evaluation.context import Change


def metadata_of(crop: Crop) -> Metadata:
    """What is known of a crop."""
    return Metadata(crop.region.assay, crop.region.indication, crop.region.description)


def without_colour(request: PairRequest, crop: Crop) -> PairRequest:
    """The model chooses the colour."""
    return replace(request, colour=Colour())


def without_text(request: PairRequest, crop: Crop) -> PairRequest:
    """Nothing is said of assay, indication or looks."""
    return replace(request, metadata=Metadata())


def without_morphology(request: PairRequest, crop: Crop) -> PairRequest:
    """The model invents the layout."""
    return replace(request, instances=None, morphology="invented", classes=None)


def other_seed(request: PairRequest, crop: Crop) -> PairRequest:
    """The same conditions, other noise: how much two pictures of one request differ."""
    return replace(request, seed=(request.seed + 1) % 2**64)


def partners(crops: Sequence[Crop], differ: Callable[[Crop, Crop], bool], seed: int) -> list[int | None]:
    """For each crop one drawn from those that differ from it, of another field where there is one; None without one."""
    rng = np.random.default_rng(seed)
    found: list[int | None] = []
    for crop in crops:
        others = [i for i, other in enumerate(crops) if differ(crop, other)]
        elsewhere = [i for i in others if crops[i].field != crop.field]
        pool = elsewhere or others
        found.append(pool[int(rng.integers(len(pool)))] if pool else None)
    return found


def other_text(crop: Crop, other: Crop) -> bool:
    """Their texts differ."""
    return metadata_of(crop) != metadata_of(other)


def other_window(crop: Crop, other: Crop) -> bool:
    """They are not the same window."""
    return (crop.field, crop.y, crop.x) != (other.field, other.y, other.x)


def with_text_of(crops: Sequence[Crop], chosen: Sequence[int | None]) -> Change:
    """The text of the partner; unchanged without one. The request's number is that of its crop."""

    def change(request: PairRequest, crop: Crop) -> PairRequest:
        partner = chosen[request.index]
        return request if partner is None else replace(request, metadata=metadata_of(crops[partner]))

    return change


def with_colour_of(crops: Sequence[Crop], chosen: Sequence[int | None]) -> Change:
    """The colour of the partner; unchanged without one."""

    def change(request: PairRequest, crop: Crop) -> PairRequest:
        partner = chosen[request.index]
        if partner is None:
            return request
        return replace(request, colour=colour_from_image(crops[partner].image, crops[partner].instances))

    return change


def both(first: Change, second: Change) -> Change:
    """One change after the other."""
    return lambda request, crop: second(first(request, crop), crop)

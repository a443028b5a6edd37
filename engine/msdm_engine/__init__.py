"""The engine of msdm: generates pixel-precise pathology image-mask pairs from a bundle, without torch.

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msdm_engine.bundle.reader import Bundle
    from msdm_engine.conditions.colour import Colour, RegionColour, colour_from_image
    from msdm_engine.conditions.metadata import Metadata
    from msdm_engine.critic import Acceptance, Agreement
    from msdm_engine.engine import Engine
    from msdm_engine.errors import MsdmError
    from msdm_engine.output.job import generate
    from msdm_engine.output.verify import verify_set
    from msdm_engine.pairs import Pair, PairRequest
    from msdm_engine.requests.file import load_request
    from msdm_engine.requests.request import ColourChoice, GroupRequest, Invent, Layout, Masks, SetRequest
    from msdm_engine.sampling.guidance import Guidance

_WHERE = {
    "Acceptance": "critic",
    "Agreement": "critic",
    "Bundle": "bundle.reader",
    "Colour": "conditions.colour",
    "ColourChoice": "requests.request",
    "Engine": "engine",
    "GroupRequest": "requests.request",
    "Guidance": "sampling.guidance",
    "Invent": "requests.request",
    "Layout": "requests.request",
    "Masks": "requests.request",
    "Metadata": "conditions.metadata",
    "MsdmError": "errors",
    "Pair": "pairs",
    "PairRequest": "pairs",
    "RegionColour": "conditions.colour",
    "SetRequest": "requests.request",
    "colour_from_image": "conditions.colour",
    "generate": "output.job",
    "load_request": "requests.file",
    "verify_set": "output.verify",
}
__all__ = [
    "Acceptance",
    "Agreement",
    "Bundle",
    "Colour",
    "ColourChoice",
    "Engine",
    "GroupRequest",
    "Guidance",
    "Invent",
    "Layout",
    "Masks",
    "Metadata",
    "MsdmError",
    "Pair",
    "PairRequest",
    "RegionColour",
    "SetRequest",
    "colour_from_image",
    "generate",
    "load_request",
    "verify_set",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

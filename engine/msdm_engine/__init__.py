"""The engine of msdm: generates pixel-precise pathology image-mask pairs from a bundle, without torch.

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msdm_engine.bundle import Bundle
    from msdm_engine.conditions.colour import Colour, RegionColour, colour_from_image
    from msdm_engine.conditions.metadata import Metadata
    from msdm_engine.engine import Engine
    from msdm_engine.errors import MsdmError
    from msdm_engine.pairs import Pair, PairRequest

_WHERE = {
    "Bundle": "bundle",
    "Colour": "conditions.colour",
    "Engine": "engine",
    "Metadata": "conditions.metadata",
    "MsdmError": "errors",
    "Pair": "pairs",
    "PairRequest": "pairs",
    "RegionColour": "conditions.colour",
    "colour_from_image": "conditions.colour",
}
__all__ = [
    "Bundle",
    "Colour",
    "Engine",
    "Metadata",
    "MsdmError",
    "Pair",
    "PairRequest",
    "RegionColour",
    "colour_from_image",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

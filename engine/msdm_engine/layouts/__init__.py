"""Layouts: instance maps that can be asked for without owning a mask.

>>> from msdm_engine.layouts import LayoutRequest, draw_layout
>>> draw_layout(LayoutRequest("columnar", height_px=256, width_px=256, seed=1)).shape
(256, 256)

Names are loaded when they are first used, so that the command line starts without OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msdm_engine.layouts.edit import Add, Edit, Elongate, Grow, Remove, Shrink, Swap, edit_instances
    from msdm_engine.layouts.fit import FittedLayout, fit_layout
    from msdm_engine.layouts.mixture import MixtureMap, MixturePart, MixtureRequest, draw_mixture
    from msdm_engine.layouts.outlines import OutlineBank, load_bank
    from msdm_engine.layouts.registry import LAYOUTS, Layout, draw_canvas, draw_layout
    from msdm_engine.layouts.request import LayoutRequest

_WHERE = {
    "Add": "edit",
    "Edit": "edit",
    "Elongate": "edit",
    "FittedLayout": "fit",
    "Grow": "edit",
    "LAYOUTS": "registry",
    "Layout": "registry",
    "LayoutRequest": "request",
    "MixtureMap": "mixture",
    "MixturePart": "mixture",
    "MixtureRequest": "mixture",
    "OutlineBank": "outlines",
    "Remove": "edit",
    "Shrink": "edit",
    "Swap": "edit",
    "draw_canvas": "registry",
    "draw_layout": "registry",
    "draw_mixture": "mixture",
    "edit_instances": "edit",
    "fit_layout": "fit",
    "load_bank": "outlines",
}
__all__ = [
    "LAYOUTS",
    "Add",
    "Edit",
    "Elongate",
    "FittedLayout",
    "Grow",
    "Layout",
    "LayoutRequest",
    "MixtureMap",
    "MixturePart",
    "MixtureRequest",
    "OutlineBank",
    "Remove",
    "Shrink",
    "Swap",
    "draw_canvas",
    "draw_layout",
    "draw_mixture",
    "edit_instances",
    "fit_layout",
    "load_bank",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

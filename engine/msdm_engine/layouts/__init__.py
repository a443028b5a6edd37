"""Layouts: instance maps that can be asked for without owning a mask.

>>> from msdm_engine.layouts import LayoutRequest, draw_layout
>>> draw_layout(LayoutRequest("columnar", height_px=256, width_px=256, seed=1)).shape
(256, 256)
"""

from msdm_engine.layouts.outlines import OutlineBank, load_bank
from msdm_engine.layouts.registry import LAYOUTS, Layout, draw_canvas, draw_layout
from msdm_engine.layouts.request import LayoutRequest

__all__ = ["LAYOUTS", "Layout", "LayoutRequest", "OutlineBank", "draw_canvas", "draw_layout", "load_bank"]

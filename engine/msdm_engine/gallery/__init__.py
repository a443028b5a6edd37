"""The gallery of a generated set: one HTML file that shows it, from disk and without a server.

Loaded when it is first used, as in :mod:`msdm_engine`: its command is registered in every call of the CLI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msdm_engine.gallery.build import write_gallery

__all__ = ["write_gallery"]


def __getattr__(name: str) -> Any:
    if name == "write_gallery":
        from msdm_engine.gallery.build import write_gallery

        return write_gallery
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

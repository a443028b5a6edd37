"""Typed reading of a manifest, which is untrusted: each value is checked once, and an error names its place."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from msdm_engine.errors import BundleError, nearest

Value = TypeVar("Value")
_SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_TEXT = 2000


def malformed(where: str, problem: str) -> BundleError:
    """The error of a value that is not what the format says."""
    return BundleError(f"manifest.json is malformed: {where} {problem}", hint="export the bundle again")


def keys(raw: Any, where: str, needed: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """An object with all the needed keys and no unknown one."""
    if not isinstance(raw, dict):
        raise malformed(where, f"is {_shown(raw)}, not an object")
    for key in raw:
        if key not in needed and key not in optional:
            raise BundleError(
                f"manifest.json has the unknown key '{key}' in {where}", note=nearest(key, [*needed, *optional])
            )
    missing = sorted(set(needed) - set(raw))
    if missing:
        raise BundleError(
            f"manifest.json lacks the key(s) {', '.join(missing)} in {where}", hint="export the bundle again"
        )
    return raw


def mapping(raw: Any, where: str, read: Callable[[Any, str], Value]) -> dict[str, Value]:
    """An object whose keys are names that the manifest chooses."""
    if not isinstance(raw, dict):
        raise malformed(where, f"is {_shown(raw)}, not an object")
    return {text(name, f"a name in {where}"): read(value, f"{where} '{name}'") for name, value in raw.items()}


def sequence(raw: Any, where: str, read: Callable[[Any, str], Value]) -> tuple[Value, ...]:
    """A list, element by element."""
    if not isinstance(raw, list):
        raise malformed(where, f"is {_shown(raw)}, not a list")
    return tuple(read(value, f"{where} [{i}]") for i, value in enumerate(raw))


def whole(raw: Any, where: str, low: int, high: int) -> int:
    """A whole number from low to high."""
    if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
        raise malformed(where, f"is {_shown(raw)}, not a whole number from {low} to {high}")
    return raw


def number(raw: Any, where: str) -> float:
    """A finite number."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        raise malformed(where, f"is {_shown(raw)}, not a finite number")
    return float(raw)


def text(raw: Any, where: str) -> str:
    """Printable text: it goes into file metadata and onto terminals."""
    if not isinstance(raw, str) or not raw.isprintable() or len(raw) > MAX_TEXT:
        raise malformed(where, f"is {_shown(raw)}, not printable text of up to {MAX_TEXT} characters")
    return raw


def sha256(raw: Any, where: str) -> str:
    """A SHA-256 in lower-case hexadecimal."""
    if not isinstance(raw, str) or not _SHA256.fullmatch(raw):
        raise malformed(where, f"is {_shown(raw)}, not a SHA-256 in hexadecimal")
    return raw


def free(raw: Any, where: str) -> dict[str, Any]:
    """An object that is passed on as it is."""
    if not isinstance(raw, dict):
        raise malformed(where, f"is {_shown(raw)}, not an object")
    return raw


def _shown(raw: Any) -> str:
    return ascii(raw)[:60]

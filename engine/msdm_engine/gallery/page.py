"""The page itself: template, style and script in one file, with the pairs as data blocks.

Nothing of a set becomes markup: its texts travel as JSON in data blocks, in which ``<``, ``>`` and ``&`` are
escaped so that no text can end the block, and the script writes them as text nodes. A content security
policy names the hash of the one script and the one style, so that nothing else would run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

#: In the order of their use: the last one wires the others together.
SCRIPTS = ("data.js", "outlines.js", "charts.js", "facets.js", "grid.js", "describe.js", "viewer.js", "gallery.js")
_PLACE = re.compile(rb"\{\{(\w+)\}\}")
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def json_for_html(value: Any) -> bytes:
    """JSON that may stand in a ``<script>`` data block, whatever texts it holds.

    ASCII only, so lone surrogates and line separators are escapes too. The three characters occur in JSON only
    within strings, where the escapes mean the same.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda found: _ESCAPES[found[0]], text).encode("ascii")


def render(parts: Mapping[str, bytes]) -> bytes:
    """The page.

    Args:
        parts: ``set``, ``pairs`` (JSON from :func:`json_for_html`) and ``details`` (markup of the detail blocks).
    """
    style = _source("gallery.css")
    script = b'"use strict";\n(() => {\n' + b"\n".join(_source(name) for name in SCRIPTS) + b"\n})();\n"
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )
    fill: dict[bytes, bytes] = {b"style": style, b"script": script, b"policy": policy.encode()}
    fill |= {key.encode(): value for key, value in parts.items()}
    # One pass, so that what has been filled in is never searched for places.
    place: Callable[[re.Match[bytes]], bytes] = lambda found: fill[found[1]]  # noqa: E731
    return _PLACE.sub(place, _source("template.html"))


def detail_block(lines: list[str]) -> bytes:
    """A data block of pairs, one a line: thumbnail, a tab, outlines. Both alphabets are free of markup."""
    return b'<script type="text/plain" class="detail">' + "\n".join(lines).encode("ascii") + b"</script>\n"


def _source(name: str) -> bytes:
    # A browser hashes a script after it has made all line ends \n; a checkout on Windows may hold others.
    return resources.files("msdm_engine.gallery").joinpath(name).read_bytes().replace(b"\r\n", b"\n")


def _hash(source: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source).digest()).decode()}'"

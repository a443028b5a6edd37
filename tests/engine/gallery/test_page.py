from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from msdm_engine.gallery import page

EVIL = [
    "</script><script>alert(1)</script>",
    "<!--",
    "-->",
    "]]>",
    "&lt;",
    "\u2028\u2029",
    "\ud800",
    '"\\',
    "{{script}}",
]


@pytest.mark.parametrize("text", EVIL)
def test_no_text_ends_its_data_block(text: str) -> None:
    data = page.json_for_html({text: [text]})
    assert not set(data) & set(b"<>&")
    assert data.isascii()
    assert json.loads(data) == {text: [text]}


def test_numbers_that_are_no_json_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        page.json_for_html(float("nan"))


def rendered() -> str:
    parts = {"set": page.json_for_html(EVIL), "pairs": b"{{set}}", "details": page.detail_block(["a\tb", "c\t"])}
    return page.render(parts).decode("utf-8")


def test_every_place_is_filled_once() -> None:
    text = rendered()
    # What is filled in is not searched: the second block keeps its braces, the text above its escapes.
    assert '<script type="application/json" id="pair-data">{{set}}</script>' in text
    assert text.count("{{") == 2
    assert '<script type="text/plain" class="detail">a\tb\nc\t</script>' in text


def test_the_policy_names_exactly_the_script_and_the_style() -> None:
    text = rendered()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (source,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_nothing_comes_from_elsewhere() -> None:
    text = rendered()
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)""", text), "no file, script, style or font by markup"
    assert not re.search(r"@import|url\((?!\")", text)
    # The one address is the name of the SVG namespace, which nothing loads.
    assert set(re.findall(r"https?://[^\s\"'`]+", text)) == {"http://www.w3.org/2000/svg"}


def test_a_checkout_with_other_line_ends_gives_the_same_page(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rendered()
    read = page.resources.files("msdm_engine.gallery").joinpath

    class Windows:
        def __init__(self, name: str) -> None:
            self.name = name

        def read_bytes(self) -> bytes:
            return read(self.name).read_bytes().replace(b"\n", b"\r\n")

    class Folder:
        def joinpath(self, name: str) -> Windows:
            return Windows(name)

    monkeypatch.setattr(page.resources, "files", lambda _: Folder())
    assert rendered() == expected

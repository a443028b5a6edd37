"""The text of a request file as plain data: JSON, and YAML cut down to it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from msdm_engine.errors import RequestError
from msdm_engine.requests.text import plain_data


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a: 1\nb: [x, 2.5, true, null]", {"a": 1, "b": ["x", 2.5, True, None]}),
        ('{"a": 1, "b": [1e5]}', {"a": 1, "b": [1e5]}),
        ('{\n\t"a": "\\ud83d\\ude00"\n}', {"a": "\U0001f600"}),  # tabs and surrogate pairs: JSON, not YAML
        ("a: 'it''s'\nb: |\n  two\n  lines\n", {"a": "it's", "b": "two\nlines\n"}),
        ("", None),
        ("# only a comment", None),
        ("{a: {b: [1]}}", {"a": {"b": [1]}}),
        ("&anchor a: 1", {"a": 1}),  # an anchor alone is harmless
    ],
)
def test_json_and_plain_yaml(text: str, data: Any) -> None:
    assert plain_data(text) == data


def test_numbers_that_are_none_are_left_to_the_reader() -> None:
    assert math.isnan(plain_data("NaN")) and math.isinf(plain_data('{"a": 1e999}')["a"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "YAML alias in line 2"),
        ("a: !!python/object/apply:os.system [ls]", "YAML tag"),
        ("a: !!int ''", "YAML tag"),
        ("a: !!bool maybe", "YAML tag"),
        ("a: ! x", "YAML tag"),
        ("a: 2020-01-01", "YAML timestamp in line 1"),
        ("a: 2020-13-45", "YAML timestamp in line 1"),
        ("<<: {a: 1}", "YAML merge"),
        ("a: 1\nb: 2\na: 3", "key 'a' is given twice"),
        ("{'a': 1, a: 3}", "key 'a' is given twice"),
        ('{"a": 1, "a": 2}', "key 'a' is given twice"),
        ("? [a]\n: 1", "unhashable key"),
        ("a: 0b_", "neither YAML nor JSON"),
        ("a: 1\n---\nb: 2", "neither YAML nor JSON"),
        ("a: [", "neither YAML nor JSON"),
        ("\0", "neither YAML nor JSON"),
        ("a: \ud800", "neither YAML nor JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("? " * 100_000, "nested too deeply"),
        ("a: " + "1:1" * 100_000, "number of 300000 characters"),  # base 60, quadratic to read
        ("a: 0x" + "f" * 100_000, "number of 100002 characters"),
        ("a: " + "9" * 100_000, "number of 100000 characters"),
    ],
)
def test_anything_else_is_an_error(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        plain_data(text)


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(RequestError, match="aliases are refused"):
        plain_data(bomb)

"""Errors as interface: three parts, printable, of bounded length, each class with an exit code of its own."""

from __future__ import annotations

import pytest

from msdm_engine import errors
from msdm_engine.errors import MAX_PART, MsdmError, nearest


def test_the_three_parts_are_lines() -> None:
    assert MsdmError("what").render() == "what"
    assert str(MsdmError("what", note="note", hint="hint")) == "what\n  note: note\n  hint: hint"


def test_each_class_has_its_own_exit_code() -> None:
    classes = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, MsdmError)]
    codes = [e.exit_code for e in classes]
    assert len(set(codes)) == len(codes) and 0 not in codes and 130 not in codes


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\u202eb", r"a\u202eb"),
        ("\ud800", r"\ud800"),
        ("tab\t", r"tab\t"),
        ("Grüße 核", "Grüße 核"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_values_from_files_cannot_steer_a_terminal(given: str, printed: str) -> None:
    assert MsdmError(given).render() == printed


def test_a_part_has_a_largest_length() -> None:
    text = MsdmError("x" * 10**6, note="y" * MAX_PART).render()
    assert (
        text == "x" * MAX_PART + "... (1000000 characters)\n  note: " + "y" * (MAX_PART - 8) + "... (2008 characters)"
    )


def test_the_nearest_word_is_named_with_all_legal_ones() -> None:
    assert nearest("colunm", ["row", "column"]) == "did you mean 'column'? Legal: column, row"
    assert nearest("zzz", ["row", "column"]) == "legal: column, row"

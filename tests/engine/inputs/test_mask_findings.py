"""Findings of masks whose geometry is known."""

from __future__ import annotations

import numpy as np
import pytest

from msdm_engine.inputs.mask_findings import MaskFindings, findings_of


def square() -> np.ndarray:
    """One nucleus, 10 x 10, away from the border."""
    labels = np.zeros((40, 40), np.uint16)
    labels[10:20, 10:20] = 1
    return labels


def ring() -> np.ndarray:
    """A nucleus with one hole of 4 x 4."""
    labels = square()
    labels[13:17, 13:17] = 0
    return labels


def test_an_ordinary_mask_has_nothing_to_tell() -> None:
    assert findings_of(square(), square()) == MaskFindings()
    assert MaskFindings().text() == ""


def test_an_empty_mask_has_nothing_to_tell() -> None:
    empty = np.zeros((20, 30), np.uint16)
    assert findings_of(empty, empty) == MaskFindings()


def test_gaps_are_seen_in_the_labels_of_the_file() -> None:
    assert findings_of(square() * 7, square()) == MaskFindings(gaps=1)


def test_a_nucleus_in_two_pieces_counts_once_whatever_the_pieces() -> None:
    labels = square()
    labels[30:33, 5:9] = 1
    labels[35, 35] = 1
    assert findings_of(labels, labels) == MaskFindings(pieces=1)


def test_pieces_that_meet_at_a_corner_only_are_two() -> None:
    labels = np.zeros((10, 10), np.uint16)
    labels[2:4, 2:4] = labels[4:6, 4:6] = 1
    assert findings_of(labels, labels).pieces == 1


def test_touching_nuclei_are_no_pieces() -> None:
    labels = square()
    labels[10:20, 20:30] = 2
    assert findings_of(labels, labels) == MaskFindings()


def test_a_hole_is_counted_and_another_nucleus_in_it_is_none() -> None:
    assert findings_of(ring(), ring()) == MaskFindings(holes=1)
    filled = ring()
    filled[13:17, 13:17] = 2
    assert findings_of(filled, filled) == MaskFindings()


def test_background_between_several_nuclei_is_no_hole() -> None:
    labels = np.zeros((30, 30), np.uint16)
    labels[5:10, 5:20], labels[15:20, 5:20], labels[10:15, 5:8], labels[10:15, 17:20] = 1, 2, 3, 4
    assert findings_of(labels, labels).holes == 0


def test_a_bay_at_the_border_is_no_hole() -> None:
    labels = np.zeros((20, 20), np.uint16)
    labels[0:10, 5:15] = 1
    labels[0:5, 8:12] = 0
    assert findings_of(labels, labels).holes == 0


@pytest.mark.parametrize(
    ("findings", "told"), [(MaskFindings(pieces=3), "3 nuclei"), (MaskFindings(holes=2), "2 hole")]
)
def test_findings_add_up_and_are_told_in_words(findings: MaskFindings, told: str) -> None:
    assert told in (findings + MaskFindings()).text()

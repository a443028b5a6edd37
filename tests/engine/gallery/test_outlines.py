from __future__ import annotations

import numpy as np
import pytest

from msdm_engine.gallery.outlines import SINGLES, TRIPLES, outline_text

STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # (y, x): east, south, west, north


def steps_of(loop: str) -> list[tuple[int, int, int]]:
    """(y, x, heading) of every step of a loop, read from the grammar and nothing else."""
    x_text, rest = loop.split(".")
    digits = next((i for i, letter in enumerate(rest) if not letter.isdigit()), len(rest))
    x, y, heading = int(x_text), int(rest[:digits]), 0
    turns: list[int] = []
    for letter in rest[digits:]:
        value = TRIPLES.find(letter)
        turns += [value // 9, value // 3 % 3, value % 3] if value >= 0 else [SINGLES.index(letter)]
    steps = []
    for turn in [*turns, None]:
        steps.append((y, x, heading))
        y, x = y + STEPS[heading][0], x + STEPS[heading][1]
        if turn is not None:
            heading = (heading + turn - 1) % 4
    assert (y, x) == steps[0][:2], "a loop is closed"
    return steps


def filled(text: str, shape: tuple[int, int]) -> np.ndarray:
    """The instance map that outlines enclose: inside is where an odd number of vertical edges lies to the left."""
    out = np.zeros(shape, np.int64)
    for label, nucleus in enumerate(text.split(";") if text else [], 1):
        crossings = np.zeros((shape[0], shape[1] + 1), np.int64)
        for loop in nucleus.split(","):
            for y, x, heading in steps_of(loop):
                if heading in (1, 3):
                    crossings[y - (heading == 3), x] += 1
        inside = np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
        assert not out[inside].any(), "no pixel is in two nuclei"
        out[inside] = label
    return out


def test_one_pixel_is_one_right_turn_thrice() -> None:
    # Four sides; the last turn leads back and is not written. R R R = 9 * 2 + 3 * 2 + 2 = 26 = 'a'.
    assert outline_text(np.array([[0, 0], [0, 1]], np.uint16)) == "1.1a"


def test_a_rectangle() -> None:
    labels = np.zeros((6, 6), np.uint16)
    labels[2:4, 1:4] = 1
    # Perimeter 10, so 9 turns: S S R, S R S, S R S, from (x, y) = (1, 2).
    assert outline_text(labels) == "1.2OQQ"
    assert len(steps_of(outline_text(labels))) == 10


def test_an_empty_map_has_no_outlines() -> None:
    assert outline_text(np.zeros((4, 4), np.uint16)) == ""


def test_a_hole_and_a_second_piece_are_loops_of_their_nucleus() -> None:
    labels = np.zeros((12, 12), np.uint16)
    labels[1:6, 1:6] = 1
    labels[3, 3] = 0
    labels[8:10, 8:10] = 1
    labels[3, 8:10] = 2
    first, second = outline_text(labels).split(";")
    # Perimeters: the square 20, its hole 4, the piece 8; the bar of the second nucleus 6.
    assert [len(steps_of(loop)) for loop in first.split(",")] == [20, 4, 8]
    assert [len(steps_of(loop)) for loop in second.split(",")] == [6]


def test_pieces_that_meet_at_a_corner_are_two_loops() -> None:
    assert [len(steps_of(loop)) for loop in outline_text(np.eye(2, dtype=np.uint16)).split(",")] == [4, 4]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (24, 17)])
def test_outlines_enclose_exactly_the_labels(seed: int, shape: tuple[int, int]) -> None:
    # Noise: every kind of touching, holes, pieces, corners and borders there is.
    random = np.random.default_rng(seed).integers(0, 4, shape)
    values, labels = np.unique(random, return_inverse=True)
    labels = labels.reshape(shape) + (values[0] != 0)  # 1..n without gaps, 0 where there is background
    assert np.array_equal(filled(outline_text(labels.astype(np.uint16)), shape), labels)


def test_the_text_needs_no_escape() -> None:
    labels = np.random.default_rng(0).integers(0, 60, (40, 40)).astype(np.uint16)
    assert set(outline_text(labels)) <= set("0123456789.,;" + TRIPLES + SINGLES)

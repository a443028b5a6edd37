"""Scores of held-out fields: expectations from geometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from msdm_engine.errors import InputError
from msdm_train.data.pack import Pack
from msdm_train.evaluation.usefulness.score import score, score_fields


@pytest.fixture
def perfect(drawn_pack: Path) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Knows the annotation of each picture."""
    pack, known = Pack(drawn_pack), {}
    for field in pack.info.fields:
        image, instances = pack.window(field.id, 0, 0, field.height_px, field.width_px)
        known[image.tobytes()] = instances
    return lambda images: [known[image.tobytes()] for image in images]


def test_a_mixed_field_is_scored_twice(
    drawn_pack: Path, perfect: Callable[[Sequence[np.ndarray]], list[np.ndarray]]
) -> None:
    scores = score_fields(Pack(drawn_pack), ["c2", "r1"], perfect)
    assert [(s.field, s.nuclei) for s in scores] == [("c2", "columnar"), ("c2", "others"), ("r1", "others")]
    assert all(s.dice == s.aji == s.pq == 1.0 and s.annotated == s.predicted > 0 for s in scores)


def test_faults_outside_the_scored_regions_do_not_count(drawn_pack: Path) -> None:
    """c2 is columnar on its left half: what is predicted there does not touch the score of the others."""
    pack = Pack(drawn_pack)
    annotated = pack.window("c2", 0, 0, 128, 256)[1]
    broken = annotated.copy()
    broken[:, :128] = 0
    columnar, others = score_fields(pack, ["c2"], lambda images: [broken])
    assert (columnar.dice, columnar.aji, columnar.pq, columnar.predicted) == (0.0, 0.0, 0.0, 0)
    assert (others.dice, others.aji, others.pq) == (1.0, 1.0, 1.0)


def test_scores_of_two_squares() -> None:
    annotated, predicted = np.zeros((20, 40), np.uint16), np.zeros((20, 40), np.uint16)
    annotated[5:15, 5:15] = 1
    annotated[5:15, 25:35] = 2
    predicted[5:15, 5:15] = 7
    found = score("f", "others", annotated, predicted)
    # One of two equal squares: Dice 2 * 100 / (200 + 100), AJI 100 / 200, PQ 1 * 1 / (1 + 1/2).
    assert found.dice == pytest.approx(2 / 3)
    assert found.aji == pytest.approx(1 / 2)
    assert found.pq == pytest.approx(2 / 3)
    assert (found.annotated, found.predicted) == (2, 1)


def test_test_fields_are_never_scored(drawn_pack: Path) -> None:
    with pytest.raises(InputError, match="not of the splits train and val"):
        score_fields(Pack(drawn_pack), ["t1"], lambda images: [])

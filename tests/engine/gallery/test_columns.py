from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from msdm_engine.gallery.columns import ALPHABET, MAX_BINS, Columns, bins_for, nice_step
from msdm_engine.gallery.manifest import records
from msdm_engine.gallery.measure import measure


@pytest.mark.parametrize(
    ("at_least", "step"),
    [(0.0, 1.0), (-3.0, 1.0), (1.0, 1.0), (1.01, 2.0), (2.2, 2.5), (37, 50), (51, 100), (0.03, 0.05)],
)
def test_steps_are_round(at_least: float, step: float) -> None:
    assert nice_step(at_least) == pytest.approx(step, rel=1e-12)


def test_a_giant_does_not_flatten_the_rest() -> None:
    values = np.array([*range(1000), 10**6])
    bins = bins_for(values, 0)
    # The 99.5th percentile of 1,001 values is 995, an interval of 1000 / 34 is rounded up to 50.
    assert (bins.low, bins.step, bins.count, bins.open) == (0, 50, 20, True)


@pytest.mark.parametrize("seed", range(5))
def test_bins_hold_all_values_and_have_a_letter_each(seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(5, 1, 400)
    bins = bins_for(values, 0)
    assert 1 <= bins.count <= MAX_BINS <= len(ALPHABET)
    assert bins.open == bool(values.max() >= bins.step * bins.count)


def test_columns_of_a_set(write_set: Any) -> None:
    folder = write_set(
        ([6, 3], {"seed": 2**64 - 1, "agreement": {"PQ": 0.25}}), ([], {"metadata": {"assay": "HE"}}), ([5, 5, 4], {})
    )
    columns = Columns()
    for record in records(folder):
        columns.add(record, measure(folder, record, 32))
    found = json.loads(json.dumps(columns.to_json(), allow_nan=False))
    assert found["index"] == [0, 1, 2]
    assert found["seed"][0] == str(2**64 - 1), "a number of JavaScript would lose its last digits"
    assert found["condition"] == [0, 1, 0], "equal conditions stand once"
    assert found["conditions"][1]["metadata"] == {"assay": "HE"}
    measures = {measure["key"]: measure["values"] for measure in found["measures"]}
    assert measures["nuclei"] == [2, 0, 3]
    # Medians of 36 and 9; of none; of 25, 25 and 16.
    assert measures["area"] == [22.5, None, 25.0]
    assert measures["agreement PQ"] == [0.25, None, None]
    bins, text = found["nuclei"]["area"]["bins"], found["nuclei"]["area"]["text"]
    assert [[ALPHABET.index(letter) for letter in letters] for letters in text] == [
        [int(area / bins["step"]) for area in areas] for areas in ([36, 9], [], [25, 25, 16])
    ]
    assert found["measured"]["foreground"][1] is None
    # 2 regions, 3 channels, 32 bins; the first pair's red of 100 fills bin 12 to the highest level.
    assert len(found["colour"][0]) == 192
    assert found["colour"][0][12] == ALPHABET[-1]
    assert set(found["colour"][1][:96]) == {"0"}, "no foreground, no colour"


def test_a_set_without_whole_nuclei_has_bins_too(write_set: Any) -> None:
    folder = write_set(([], {"colour": {}}))
    columns = Columns()
    for record in records(folder):
        columns.add(record, measure(folder, record, 32))
    found = columns.to_json()
    assert found["nuclei"]["area"]["bins"]["count"] == 1
    assert [measure["key"] for measure in found["measures"]] == ["nuclei", "area", "aspect"], "no colour was asked for"

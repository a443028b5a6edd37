from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from msdm_engine.errors import InputError
from msdm_train.cli import main
from msdm_train.data.paraphrases import HELD_OUT, held_out_wordings
from msdm_train.data.reader import Field
from msdm_train.data.text import SYNONYMS
from msdm_train.paraphrases import paraphrase_report, triplets

REFERENCE = Path(__file__).parents[2] / "engine/msdm_engine/bundles/reference"


def test_triplets_from_geometry() -> None:
    """Three descriptions on a circle around the origin, 120 degrees apart; paraphrases at known angles."""
    angles = {"a": 0, "b": 120, "c": 240, "near a": 20, "past the half of a and b": 70}

    def embed(texts: Sequence[str]) -> np.ndarray:
        turned = np.radians([angles[text] for text in texts])
        return np.stack([np.cos(turned), np.sin(turned)], 1)

    found = triplets(embed, ["a", "b", "c"], [["near a"], ["b"], []])
    cos = {degrees: np.cos(np.radians(degrees)) for degrees in (20, 70, 120, 130)}
    assert found["triplets"] == 2  # a text that is its own paraphrase asks nothing
    assert (found["right"], found["margin"]) == (1.0, pytest.approx(cos[20] - cos[120]))
    # An anchor at 70 degrees is nearer to its paraphrase than to others up to 120 degrees away.
    found = triplets(embed, ["a", "b", "c"], [["past the half of a and b", "c"], [], []])
    assert (found["triplets"], found["right"]) == (4, 0.5)


def test_the_held_out_wordings_are_held_out() -> None:
    trained = {phrase for group in SYNONYMS for phrase in group}
    assert not trained & {wording for wordings in HELD_OUT.values() for wording in wordings}
    assert set(HELD_OUT) <= {group[0] for group in SYNONYMS}
    assert held_out_wordings("small nuclei; round and oval nuclei") == [
        "nuclei of small size; ovoid to rounded nuclei",
        "isomorphic round cell population; small compact nuclei",
    ]
    assert held_out_wordings("zebrafish") == []


def test_the_command_on_the_reference(draw_field: Callable[..., Field], pack_of: Callable[..., Path]) -> None:
    texts = ("small nuclei; white background", "large nuclei; pink background", "spindle-shaped stromal nuclei")
    pack = pack_of(*[draw_field(f"f{i}", "train", description=text) for i, text in enumerate(texts)])
    told = CliRunner().invoke(main, ["paraphrases", str(REFERENCE), "--data", str(pack)], catch_exceptions=False)
    report = json.loads(told.output)
    assert report["descriptions"] == 3
    assert report["held_out"]["triplets"] == 3 * 2 * 2
    for part in (report["trained"], report["held_out"]):
        assert 0.5 < part["right"] <= 1  # better than by chance


def test_one_description_is_not_enough(draw_field: Callable[..., Field], pack_of: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="has 1 descriptions"):
        paraphrase_report(REFERENCE, pack_of(draw_field("f", "train")))

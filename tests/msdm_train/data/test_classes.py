"""Nucleus classes from a source to the state, and the refusal of half-classified data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.errors import InputError
from msdm_train.data.batches import CropSampler
from msdm_train.data.pack import Pack, write_pack
from msdm_train.data.reader import Field, Region
from msdm_train.data.vocabulary import tokenizer_json


class Classified:
    """One field: a grid of square nuclei, odd labels of class 0, even ones of class 1."""

    name, licence, source = "classified", "CC0-1.0", "made by a test"

    def __init__(self, classes: dict[int, int] | None) -> None:
        self.classes = classes

    def fields(self) -> Iterator[Field]:
        """A train field with the classes given, and a val field with none if they are None."""
        instances = np.zeros((64, 64), np.uint16)
        for label in range(1, 17):
            y, x = divmod(label - 1, 4)
            instances[16 * y + 2 : 16 * y + 12, 16 * x + 2 : 16 * x + 12] = label
        image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        full = {label: int(label % 2 == 0) for label in range(1, 17)}
        region = Region(0, 0, 64, 64, {}, "small nuclei")
        yield Field("a", "train", image, instances, (region,), full)
        yield Field("b", "val", image, instances, (region,), self.classes)


def test_class_maps_follow_the_nuclei_into_the_state(tmp_path: Path) -> None:
    write_pack(Classified({label: int(label % 2 == 0) for label in range(1, 17)}), tmp_path / "pack")
    pack = Pack(tmp_path / "pack")
    assert pack.info.n_classes == 2
    assert len(pack.info.statistics["state_mean"]) == 6 + 2
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(pack, 512))
    tokenizer = TextTokenizer(tmp_path / "tokenizer.json", 16)
    state = CropSampler(pack, "val", crop_px=64, batch=1, tokenizer=tokenizer, seed=0)(0)["state"][0]
    assert state.shape == (8, 64, 64)
    # Half of the nuclei are class 0, half class 1; together they are the foreground.
    assert np.array_equal(np.maximum(state[6], state[7]), state[3])
    assert (state[6] == 1).sum() == (state[7] == 1).sum() == 8 * 100


def test_a_field_without_classes_among_classified_ones_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="field b has no nucleus classes"):
        write_pack(Classified(None), tmp_path / "pack")
    assert list(tmp_path.iterdir()) == []

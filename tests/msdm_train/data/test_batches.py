from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine.conditions.colour import colour_from_image
from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.errors import InputError
from msdm_train.data.batches import (
    Augment,
    Batch,
    ConditionDropout,
    CropSampler,
    covered,
    scale_optical_density,
)
from msdm_train.data.pack import Pack, write_pack
from msdm_train.data.reader import Field, Region
from msdm_train.data.tiles import TileReader
from msdm_train.data.vocabulary import train_tokenizer

DATA = Path(__file__).parents[4] / "shared" / "data" / "bbbc038_histology"
PLAIN = Augment(scale_probability=0, stain_probability=0)


@pytest.fixture(scope="session")
def tokenizer(opened_pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(opened_pack, 1024, path)
    return TextTokenizer(path, 48)


def sampler(pack: Pack, tokenizer: TextTokenizer, crop_px: int = 16, batch: int = 4, **options: Any) -> CropSampler:
    given = {"split": "train", "crop_px": crop_px, "batch": batch, "tokenizer": tokenizer, "seed": 0, **options}
    return CropSampler(pack, **given)


def rgb_of(state: np.ndarray) -> np.ndarray:
    """[6, h, w] state -> [h, w, 3] uint8; v / 127.5 - 1 in float32 comes back exactly after rounding."""
    return np.rint((state[:3].transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)


def encoded(field: Field) -> Field:
    """Writes what a crop should tell into its colours: red 255 inside nuclei, green the label, blue the row."""
    image = np.zeros_like(field.image)
    image[..., 0] = np.where(field.instances > 0, 255, 0)
    image[..., 1] = field.instances
    image[..., 2] = np.arange(image.shape[0])[:, None]
    return replace(field, image=image)


def test_a_batch_has_the_contract(opened_pack: Pack, tokenizer: TextTokenizer) -> None:
    batch = sampler(opened_pack, tokenizer, augment=Augment(), dropout=ConditionDropout())(3)
    shapes = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert shapes == {
        "state": ((4, 6, 16, 16), "float32"),
        "maps_present": ((4, 1), "float32"),
        "colour": ((4, 12), "float32"),
        "colour_present": ((4, 2), "float32"),
        "token_ids": ((4, 48), "int64"),
        "token_mask": ((4, 48), "float32"),
    }
    assert np.abs(batch["state"]).max() <= 1


def equal(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_a_batch_is_a_function_of_seed_step_and_rank(opened_pack: Pack, tokenizer: TextTokenizer) -> None:
    options: dict[str, Any] = {"augment": Augment(), "dropout": ConditionDropout()}
    one, other = (sampler(opened_pack, tokenizer, **options) for _ in range(2))
    one(1), one(2)
    assert equal(one(7), other(7))
    assert not equal(one(7), one(8))
    assert not equal(one(7), sampler(opened_pack, tokenizer, seed=1, **options)(7))
    assert not equal(one(7), sampler(opened_pack, tokenizer, rank=1, **options)(7))


def test_image_and_instance_map_turn_together(
    draw_field: Callable[..., Field], pack_of: Callable[..., Path], tokenizer: TextTokenizer
) -> None:
    pack = Pack(pack_of(encoded(draw_field("a", "train"))))
    draw = sampler(pack, tokenizer, 24, 8, augment=PLAIN)
    for step in range(10):
        for state in draw(step)["state"]:
            labels = rgb_of(state)[..., 1]
            np.testing.assert_array_equal(state[3:], maps_from_instances(labels.astype(np.uint16)))
            np.testing.assert_array_equal(state[0], state[3])


def test_all_eight_symmetries_occur(
    draw_field: Callable[..., Field], pack_of: Callable[..., Path], tokenizer: TextTokenizer
) -> None:
    field = encoded(draw_field("a", "train", 32))
    draw = sampler(Pack(pack_of(field)), tokenizer, 32, 16, augment=PLAIN)
    expected = {
        np.ascontiguousarray(flipped).tobytes()
        for turned in (np.rot90(field.image, k) for k in range(4))
        for flipped in (turned, turned[:, ::-1])
    }
    # A crop as large as the field is the field: 64 of them miss one of eight symmetries once in 600 times.
    found = {rgb_of(state).tobytes() for step in range(4) for state in draw(step)["state"]}
    assert found == expected
    assert len(expected) == 8


def test_scaling_keeps_image_and_map_together(
    draw_field: Callable[..., Field], pack_of: Callable[..., Path], tokenizer: TextTokenizer
) -> None:
    pack = Pack(pack_of(encoded(draw_field("a", "train"))))
    draw = sampler(pack, tokenizer, 32, 8, augment=Augment(scale_probability=1, stain_probability=0))
    for state in (state for step in range(4) for state in draw(step)["state"]):
        # Smooth and nearest interpolation differ in a rim of a pixel: 4 nuclei x 32 px of 1024, 12.5 %.
        assert ((state[0] > 0) == (state[3] > 0)).mean() > 0.875


def test_crops_never_reach_into_a_hole(
    draw_field: Callable[..., Field], pack_of: Callable[..., Path], tokenizer: TextTokenizer
) -> None:
    drawn = draw_field("a", "train", 96)
    # An L of three regions, and a fourth by itself that is smaller than a crop.
    corners = ((0, 0, 40, 40), (0, 40, 40, 80), (40, 0, 80, 40), (84, 84, 94, 94))
    regions = tuple(Region(y0, x0, y1, x1, {}, f"place {i}") for i, (y0, x0, y1, x1) in enumerate(corners))
    hole = np.ones((96, 96), bool)
    for r in regions:
        hole[r.y0 : r.y1, r.x0 : r.x1] = False
    image = drawn.image.copy()
    image[..., 0] = image[..., 0] % 20
    image[hole, 0] = 255
    pack = Pack(pack_of(replace(drawn, image=image, regions=regions)))
    draw = sampler(pack, tokenizer, 32, 8, augment=Augment(stain_probability=0))
    for step in range(40):
        # Cubic scaling overshoots by a fraction of the contrast, which is 20 levels where there is data.
        assert rgb_of_batch(draw(step))[..., 0].max() < 60


def rgb_of_batch(batch: Batch) -> np.ndarray:
    return np.stack([rgb_of(state) for state in batch["state"]])


def test_covered() -> None:
    left, right = Region(0, 0, 10, 10, {}), Region(0, 10, 10, 20, {})
    assert covered((left, right), 2, 6, 8)
    assert not covered((left,), 2, 6, 8)
    assert not covered((left, right), 3, 6, 8)


def test_the_colour_condition_is_that_of_the_picture(opened_pack: Pack, tokenizer: TextTokenizer) -> None:
    strong = Augment(stain_probability=1, stain_strength=0.3)
    batch = sampler(opened_pack, tokenizer, 24, 8, augment=strong)(0)
    for i, state in enumerate(batch["state"]):
        features, present = colour_from_image(rgb_of(state), (state[3] > 0).astype(np.uint8)).features()
        np.testing.assert_array_equal(batch["colour"][i], features)
        np.testing.assert_array_equal(batch["colour_present"][i], present)


def test_optical_density() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    np.testing.assert_array_equal(scale_optical_density(image, np.ones(3)), image)
    # Twice the density squares the transmittance: ((127 + 1) / 256)^2 = 1/4, which is level 64 - 1.
    assert scale_optical_density(image, np.array([2.0, 1, 1]))[7, 15].tolist() == [63, 127, 127]


def test_conditions_are_dropped_independently_at_their_rates(opened_pack: Pack, tokenizer: TextTokenizer) -> None:
    rates = ConditionDropout(morphology=0.15, colour=0.3, text=0.2)
    draw = sampler(opened_pack, tokenizer, 8, 250, dropout=rates)
    batches = [draw(step) for step in range(8)]
    n = 2000
    gone = {
        "morphology": np.concatenate([b["maps_present"][:, 0] == 0 for b in batches]),
        "colour": np.concatenate([b["colour_present"].sum(1) == 0 for b in batches]),
        "text": np.concatenate([b["token_mask"].sum(1) == 0 for b in batches]),
    }
    for name, dropped in gone.items():
        rate = getattr(rates, name)
        # Four standard deviations of a binomial share.
        assert abs(dropped.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / n), name
    for one, two in (("morphology", "colour"), ("morphology", "text"), ("colour", "text")):
        rate = getattr(rates, one) * getattr(rates, two)
        assert abs((gone[one] & gone[two]).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / n)
    for batch in batches:
        assert not batch["colour"][batch["colour_present"].sum(1) == 0].any()
        # The state keeps its maps: they are what the model has to invent.
        assert (np.abs(batch["state"][:, 3:]).max((1, 2, 3)) == 1).all()


def test_without_dropout_and_augmentation_every_condition_is_given(opened_pack: Pack, tokenizer: TextTokenizer) -> None:
    batch = sampler(opened_pack, tokenizer, 16, 8, split="val")(0)
    assert (batch["maps_present"] == 1).all()
    assert (batch["token_ids"][:, : int(batch["token_mask"][0].sum())] > 0).all()


def test_rare_descriptions_count_by_the_root_of_their_regions(
    draw_field: Callable[..., Field], pack_of: Callable[..., Path], tokenizer: TextTokenizer
) -> None:
    common = [draw_field(f"c{i}", "train", 32, description="round", seed=i) for i in range(9)]
    rare = draw_field("r", "train", 32, description="spindle")
    pack = Pack(pack_of(*[_tinted(f, 40) for f in common], _tinted(rare, 200)))
    draw = sampler(pack, tokenizer, 8, 100)
    reds = np.concatenate([rgb_of_batch(draw(step))[:, 0, 0, 0] for step in range(10)])
    # sqrt(1) : sqrt(9) = 1 : 3; four standard deviations of 1000 draws.
    assert abs((reds == 200).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 1000)


def _tinted(field: Field, red: int) -> Field:
    image = field.image.copy()
    image[..., 0] = red
    return replace(field, image=image)


def test_training_never_sees_val_or_test(
    draw_field: Callable[..., Field], pack_of: Callable[..., Path], tokenizer: TextTokenizer
) -> None:
    splits = {"train": 40, "val": 120, "test": 250}
    fields = [_tinted(draw_field(f"{s}{i}", s, 32), red + i) for s, red in splits.items() for i in range(2)]
    pack = Pack(pack_of(*fields))
    unchanged_red = Augment(scale_probability=0.5, stain_probability=0)
    for split, red in splits.items():
        draw = sampler(pack, tokenizer, 16, 16, split=split, augment=unchanged_red, dropout=ConditionDropout())
        seen = Counter(value for step in range(12) for value in np.unique(rgb_of_batch(draw(step))[..., 0]))
        assert set(seen) == {red, red + 1}


def test_a_split_without_fields(draw_field: Callable[..., Field], pack_of: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="no field in the split 'val'"):
        sampler(Pack(pack_of(draw_field("a", "train"))), tokenizer=None, split="val")  # type: ignore[arg-type]


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the tile pack in ../shared/data")
def test_no_field_of_val_or_test_is_in_the_train_sampler(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "real.safetensors"
    info = write_pack(TileReader(DATA, licence="CC0-1.0"), path)
    held_out = {field.id for field in info.fields if field.split != "train"}
    trained = {field.id for field, _ in sampler(Pack(path), tokenizer, 64).places}
    # 13 fields to train on and 8 held out, 83 tiles in all: as the description of the data set counts them.
    assert (len(trained), len(held_out)) == (13, 8)
    assert not trained & held_out
    assert sum(len(field.regions) for field in info.fields) == 83

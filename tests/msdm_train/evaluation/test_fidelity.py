from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msdm_engine.errors import InputError
from msdm_train.data.crops import Crop
from msdm_train.data.pack import Pack
from msdm_train.data.reader import Region
from msdm_train.evaluation.context import Change, Context
from msdm_train.evaluation.fidelity import run, shuffled_masks
from msdm_train.evaluation.samples import Sample, real_samples

PAPER, INK = 220, 60


class Ink:
    """An evaluator that sees every dark pixel: perfect on the pictures that this test draws."""

    identity = {"architecture": "threshold"}  # noqa: RUF012

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        dark = [(image[..., 0] < (PAPER + INK) / 2).astype(np.uint8) for image in images]
        return [cv2.connectedComponents(one)[1].astype(np.uint16) for one in dark]


def squares(side_px: int, seed: int, nuclei: int = 4) -> np.ndarray:
    """Squares of 8 px, in places of a grid of 16 px that are drawn; they do not touch."""
    instances = np.zeros((side_px, side_px), np.uint16)
    places = [(y, x) for y in range(4, side_px - 11, 16) for x in range(4, side_px - 11, 16)]
    chosen = np.random.default_rng(seed).permutation(len(places))[:nuclei]
    for label, at in enumerate(chosen, start=1):
        y, x = places[at]
        instances[y : y + 8, x : x + 8] = label
    return instances


def picture(instances: np.ndarray, shift_px: int = 0) -> np.ndarray:
    """Dark where the mask, moved to the right, has nuclei."""
    moved = np.roll(instances, shift_px, axis=1) > 0
    return np.repeat(np.where(moved, INK, PAPER).astype(np.uint8)[..., None], 3, -1)


def crop(field: str, instances: np.ndarray, architecture: str = "round") -> Crop:
    region = Region(0, 0, len(instances), len(instances), {"architecture": architecture})
    return Crop(field, 0, 0, region, picture(instances), instances)


@pytest.fixture
def make_context(opened_pack: Pack, tmp_path: Path) -> Any:
    def make(crops: Sequence[Crop], generated: Sequence[Sample]) -> Context:
        def never(name: str, change: Change) -> list[Sample]:
            raise AssertionError("fidelity needs no other set")

        return Context(
            out=tmp_path,
            pack=opened_pack,
            split="val",
            side_px=64,
            quick=True,
            seed=3,
            real=tuple(crops),
            train=(),
            generated=tuple(generated),
            make=never,
            embed=None,  # type: ignore[arg-type]  # not looked at
            evaluator=Ink(),
            say=lambda _: None,
        )

    return make


CROPS = [crop("abc"[i % 3], squares(64, i), "round" if i < 4 else "columnar") for i in range(6)]


def generated(shift_px: int = 0) -> list[Sample]:
    return [replace(s, image=picture(s.instances, shift_px), seed=0) for s in real_samples(CROPS)]


def test_faithful_pictures_reach_the_ceiling(make_context: Any) -> None:
    report = run(make_context(CROPS, generated()))
    for score in ("dice", "aji", "pq"):
        assert report["scores"]["real"]["pooled"][score] == 1  # the evaluator is perfect here
        ratio = report["ratio"][score]
        assert ratio["value"] == ratio["low"] == ratio["high"] == 1
        # Each mask has 4 of 16 places: a quarter of them are shared by chance.
        assert report["scores"]["shuffled"]["pooled"][score] < 0.5
    assert report["scores"]["generated"]["mean"]["boundary_mean_px"] == 0
    assert report["n"] == {"generated": 6, "real": 6, "shuffled": 6} and report["fields"] == ["a", "b", "c"]
    assert "floor" in report["protocol"] and report["evaluator"] == Ink.identity


def test_masks_shifted_by_3_px_lower_the_ratio(make_context: Any) -> None:
    report = run(make_context(CROPS, generated(shift_px=3)))
    # Squares of 8 px: 5 x 8 pixels are shared. Dice 40 / 64, IoU 40 / 88, which is no match.
    assert report["ratio"]["dice"]["value"] == pytest.approx(40 / 64)
    assert report["ratio"]["aji"]["value"] == pytest.approx(40 / 88)
    assert report["ratio"]["pq"]["value"] == 0
    assert report["ratio"]["dice"]["high"] < report["range"][0]
    assert report["scores"]["generated"]["mean"]["boundary_p95_px"] == pytest.approx(3)


def test_groups_are_scored_apart(make_context: Any) -> None:
    made = [s if s.group == "round" else replace(s, image=picture(s.instances, 3)) for s in generated()]
    groups = run(make_context(CROPS, made))["groups"]
    assert groups["round"]["ratio"]["dice"]["value"] == 1
    assert groups["columnar"]["ratio"]["dice"]["value"] == pytest.approx(40 / 64)
    assert groups["columnar"]["n"] == {"generated": 2, "real": 2} and groups["columnar"]["fields"] == ["b", "c"]


def test_pictures_without_nuclei(make_context: Any) -> None:
    crops = [crop("a", squares(64, 0, nuclei=0)), crop("b", squares(64, 1, nuclei=0))]
    made = real_samples(crops)
    report = run(make_context(crops, made))
    assert report["scores"]["generated"]["mean"]["dice"] == 1  # two empty masks agree
    assert report["ratio"]["dice"]["value"] is None  # no pixel at all: nothing to pool
    invented = [made[0], replace(made[1], image=picture(squares(64, 1)))]
    report = run(make_context(crops, invented))
    assert report["scores"]["generated"]["mean"]["dice"] == 0.5 and report["scores"]["generated"]["one_mask_empty"] == 1


def test_one_picture_has_no_interval_and_no_floor(make_context: Any) -> None:
    report = run(make_context(CROPS[:1], generated()[:1]))
    assert report["ratio"]["dice"]["value"] == 1 and report["ratio"]["dice"]["low"] is None
    assert report["n"]["shuffled"] == 0 and report["scores"]["shuffled"]["mean"]["dice"] is None


def test_mixed_sizes(make_context: Any) -> None:
    crops = [crop("a", squares(64, 0)), crop("b", squares(80, 1)), crop("c", squares(80, 2))]
    report = run(make_context(crops, real_samples(crops)))
    assert report["ratio"]["aji"]["value"] == 1
    assert report["n"] == {"generated": 3, "real": 3, "shuffled": 2}  # the one of 64 px has no partner


def test_shuffled_masks_come_from_another_crop_of_equal_size() -> None:
    samples = [replace(s, seed=seed) for seed in (0, 1) for s in real_samples(CROPS)]
    masks = shuffled_masks(samples, seed=5)
    lent = [next(k for k, one in enumerate(CROPS) if one.instances is mask) for mask in masks]
    assert all(lender != sample.crop for lender, sample in zip(lent, samples, strict=True))
    assert sorted(lent[:6]) == list(range(6)) and lent[:6] == lent[6:]


@pytest.mark.parametrize(("crops", "made", "what"), [([], generated(), "real"), (CROPS, [], "generated")])
def test_refuses_an_empty_set(make_context: Any, crops: list[Crop], made: list[Sample], what: str) -> None:
    with pytest.raises(InputError, match=f"without {what} pictures"):
        run(make_context(crops, made))

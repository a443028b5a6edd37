from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from msdm_engine.errors import InputError, NumericsError, RequestError
from msdm_train.data.pack import Pack
from msdm_train.segmentation import train as module
from msdm_train.segmentation.checkpoint import load_segmenter_network, read_segmenter_info
from msdm_train.segmentation.config import Architecture, SegmenterConfig
from msdm_train.segmentation.loss import SegmentationLoss, segmentation_loss
from msdm_train.segmentation.sources import PackFields
from msdm_train.segmentation.train import train_segmenter

CONFIG = SegmenterConfig(steps=4, batch=2, crop_px=32, save_every=2, log_every=1)


class Killed(Exception):
    """Stands for a kill in the midst of a run."""


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch, value: float | None = None) -> None:
    """The loss of that step (1, 2, ...) raises, or is ``value``."""
    calls = iter(range(1, 1000))

    def loss(output: torch.Tensor, target: torch.Tensor) -> SegmentationLoss:
        found = segmentation_loss(output, target)
        if next(calls) != step:
            return found
        if value is None:
            raise Killed
        return found._replace(total=found.total * value)

    monkeypatch.setattr(module, "segmentation_loss", loss)


def losses(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["train/total"]) for line in lines]


@pytest.mark.parametrize("architecture", ["plain", "lite0"])
def test_a_killed_run_goes_on_bit_for_bit(
    architecture: Architecture, opened_pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if architecture == "lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    source, config = PackFields(opened_pack), replace(CONFIG, architecture=architecture)
    whole = train_segmenter(source, config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(4, patch)
        with pytest.raises(Killed):
            train_segmenter(source, config, tmp_path / "killed")
    assert read_segmenter_info(tmp_path / "killed" / "checkpoint").step == 2
    resumed = train_segmenter(source, config, tmp_path / "killed")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    for name in ("model.safetensors", "training.safetensors"):
        one, other = load_file(whole / name), load_file(resumed / name)
        assert one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)


def test_it_learns(trained: Path) -> None:
    found = losses(trained.parent)
    assert found[-1][1] < 0.6 * found[0][1]


def test_the_checkpoint_says_what_it_was_made_from(trained: Path, opened_pack: Pack) -> None:
    network, info = load_segmenter_network(trained)
    assert info.step == 40 and info.source["fields"] == ["t1"] and len(info.sha256) == 64
    assert not network.training
    assert sorted(path.name for path in trained.iterdir()) == [
        "model.safetensors",
        "segmenter.json",
        "training.safetensors",
    ]


def test_a_finished_run_is_returned_as_it_is(
    opened_pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, config = PackFields(opened_pack), replace(CONFIG, steps=1)
    folder = train_segmenter(source, config, tmp_path)
    stop_at(1, monkeypatch)
    assert train_segmenter(source, config, tmp_path) == folder


# The last one is finite in the loss, about 1e38, and not in the gradient's norm.
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_a_loss_that_is_not_finite_keeps_the_last_good_state(
    value: float, opened_pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(3, monkeypatch, value)
    with pytest.raises(NumericsError, match="at step 3"):
        train_segmenter(PackFields(opened_pack), CONFIG, tmp_path)
    network, info = load_segmenter_network(tmp_path / "checkpoint")
    assert info.step == 2 and all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_refuses_to_go_on_with_other_settings_or_data(opened_pack: Pack, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=1)
    train_segmenter(PackFields(opened_pack), config, tmp_path)
    for source, other in (
        (PackFields(opened_pack), replace(config, steps=9)),
        (PackFields(opened_pack), replace(config, architecture="lite0")),
        (PackFields(opened_pack, ["t2"]), config),
    ):
        with pytest.raises(RequestError, match="was trained otherwise"):
            train_segmenter(source, other, tmp_path)


def test_refuses_what_is_no_segmenter(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(InputError, match="is not a segmenter"):
        load_segmenter_network(tmp_path)
    for name in ("model.safetensors", "segmenter.json"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    info = json.loads((tmp_path / "segmenter.json").read_text())
    (tmp_path / "segmenter.json").write_text(json.dumps({**info, "sha256": "0" * 64}))
    with pytest.raises(InputError, match="is not as it was written"):
        load_segmenter_network(tmp_path)
    (tmp_path / "segmenter.json").write_text(json.dumps({**info, "format": 99}))
    with pytest.raises(InputError, match="has format 99"):
        load_segmenter_network(tmp_path)

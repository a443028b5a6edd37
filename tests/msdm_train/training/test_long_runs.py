from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from click.testing import CliRunner

from msdm_engine.errors import InputError, NumericsError, RequestError
from msdm_train.cli import main
from msdm_train.data.pack import Pack
from msdm_train.data.reader import Field
from msdm_train.training import loss
from msdm_train.training.averages import choose_average, gammas_of, losses_of_averages
from msdm_train.training.checkpoint import read_info, read_tensors
from msdm_train.training.config import FitConfig, Part
from msdm_train.training.fit import fit, open_trainer
from msdm_train.training.score import Judge, Score, Scorer
from msdm_train.training.start import begin

CONFIG = FitConfig(steps=6, batch=2, crop_px=16, warmup_steps=2, save_every=1, log_every=1, validate_every=100)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def scale_loss(monkeypatch: pytest.MonkeyPatch, factor_of_call: Callable[[int], float]) -> None:
    calls: list[int] = []

    def scaled(*args: Any, really: Any = loss.edm_loss) -> Any:
        calls.append(1)
        parts = really(*args)
        return parts._replace(total=parts.total * factor_of_call(len(calls)))

    monkeypatch.setattr(loss, "edm_loss", scaled)


def test_divergence_stops_and_keeps_what_was_before(
    small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale_loss(monkeypatch, lambda call: 1 if call <= 3 else 1000)
    config = replace(CONFIG, spike_factor=20, spike_window=3)
    with pytest.raises(NumericsError, match=r"diverged.*at step 5") as raised:
        fit(small_pack, tmp_path, config, model="tiny")
    # Losses 1 1 1 1000 1000: the median of three is above with the fifth, the last of a fifth of the window with the
    # fourth, whose checkpoint is left out.
    assert "--init" in str(raised.value)
    assert read_info(tmp_path / "checkpoint").training["run_step"] == 3
    # The rule may be turned off on resume, where the run goes on.
    fit(small_pack, tmp_path, replace(config, spike_factor=0))
    assert read_info(tmp_path / "checkpoint").training["run_step"] == 6


def test_a_gradient_that_is_not_finite_stops(small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(parameters: Any, *_: Any) -> torch.Tensor:
        return torch.tensor(float("inf"))

    trainer = open_trainer(small_pack, tmp_path, CONFIG, model="tiny")
    monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", infinite)
    with pytest.raises(NumericsError, match="the norm of the gradients is inf at step 1"):
        trainer.run_to_end()
    assert not (tmp_path / "checkpoint").exists()


def test_a_curriculum_resumes_to_the_bit_within_and_across_its_parts(small_pack: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, curriculum=(Part(32, 1, 2), Part(24, 1, 2)), steps=6, ema_also=(3.0,), cooldown_share=0)
    fit(small_pack, tmp_path / "whole", config, model="tiny")
    for steps in (1, 3, 6):
        fit(small_pack, tmp_path / "parts", replace(config, steps=steps), model="tiny")
    one, two = (read_tensors(tmp_path / run / "checkpoint/training.safetensors") for run in ("whole", "parts"))
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    with pytest.raises(RequestError, match="crop_px 18"):
        fit(small_pack, tmp_path / "odd", replace(config, curriculum=(Part(18, 1, 1),)), model="tiny")


def test_the_average_is_chosen_afterwards(small_pack: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(small_pack, run, replace(CONFIG, ema_also=(0.5, 30.0)), model="tiny")
    last = run / "checkpoint"
    assert gammas_of(last) == [6.94, 0.5, 30.0]
    assert list(losses_of_averages(last, small_pack)) == [6.94, 0.5, 30.0]
    told = CliRunner().invoke(main, ["ema", str(last), "--choose", "30", "--out", str(tmp_path / "chosen")])
    assert told.exit_code == 0
    raw = read_tensors(last / "training.safetensors")
    chosen = read_tensors(tmp_path / "chosen" / "model.safetensors")
    assert all(torch.equal(value, raw[f"ema.30.0/{name}"]) for name, value in chosen.items())
    assert read_info(tmp_path / "chosen").training["ema_chosen"] == 30.0
    # beta is nearly 0 for gamma 30 in the first steps: that average follows the raw weights the closest.
    distance = {
        gamma: sum(float((raw[f"ema.{gamma}/{n}"] - raw[f"model.{n}"]).square().sum()) for n in chosen)
        for gamma in (0.5, 30.0)
    }
    assert distance[30.0] < distance[0.5]
    with pytest.raises(RequestError, match=r"gamma 5\n.*6\.94, 0\.5, 30"):
        choose_average(last, 5.0, tmp_path / "other")
    with pytest.raises(RequestError, match="exists"):
        choose_average(last, 30.0, tmp_path / "chosen")
    with pytest.raises(InputError, match="one average only"):
        gammas_of(tmp_path / "chosen")


class Threshold:
    """Calls whatever is dark a nucleus."""

    identity: dict[str, str] = {}  # noqa: RUF012

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [(image[..., 1] < 120).astype(np.uint16) for image in images]


class MeanColour:
    """Three numbers a picture."""

    identity: dict[str, str] = {}  # noqa: RUF012

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([image.reshape(-1, 3).mean(0) for image in images]) / 255


def test_scores_on_a_schedule_keep_the_best(small_pack: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=4, score_every=2, score_windows=3)
    fit(small_pack, tmp_path, config, model="tiny", judge=Judge(Threshold(), MeanColour()))
    lines = [line for line in (tmp_path / "log.jsonl").read_text().splitlines() if "score/dice" in line]
    assert len(lines) == 2
    best = read_info(tmp_path / "checkpoint-best")
    assert set(best.training["score"]) == {"dice", "aji", "dice_real", "aji_real", "distance"}
    assert best.training["run_step"] in (2, 4)
    assert not (tmp_path / "checkpoint-best" / "training.safetensors").exists()


def test_what_scores_need(
    small_pack: Path, tmp_path: Path, draw_field: Callable[..., Field], pack_of: Callable[..., Path]
) -> None:
    config = replace(CONFIG, score_every=2, score_windows=3)
    with pytest.raises(RequestError, match="needs an evaluator"):
        fit(small_pack, tmp_path / "run", config, model="tiny")
    without = pack_of(draw_field("x", "train"))
    with pytest.raises(RequestError, match="split val of drawn has 0 windows of 16 px, not 3"):
        fit(without, tmp_path / "run", config, model="tiny", judge=Judge(Threshold()))
    assert not (tmp_path / "run").exists()


def test_a_perfect_picture_scores_what_the_real_one_does(small_pack: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, score_every=1, score_windows=3)
    pack = Pack(small_pack)
    start = begin(pack, tmp_path, config, "tiny", None)
    scorer = Scorer.open(pack, config, Judge(Threshold()), start)
    assert scorer._real == scorer._agreement([crop.image for crop in scorer.crops])
    # Some, not all, of the drawn nuclei are darker in green than the threshold.
    assert 0 < scorer._real[0] < 1


def test_which_score_is_better() -> None:
    def score(dice: float, distance: float | None = None) -> Score:
        return Score(dice, 0.5, 0.9, 0.5, distance)

    # 0.97 of 0.9 is 0.873: above it the distance counts, below it the Dice.
    assert score(0.88, 2.0).rank() > score(0.95, 3.0).rank()
    assert score(0.88, 9.0).rank() > score(0.87, 0.1).rank()
    assert score(0.6, 9.0).rank() > score(0.5, 0.1).rank()
    assert score(0.9).rank() > score(0.88).rank()

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from click.testing import CliRunner
from torch import Tensor

from msdm_engine.errors import InputError, NumericsError, RequestError
from msdm_train.cli import main
from msdm_train.data.pack import Pack
from msdm_train.data.reader import Field
from msdm_train.training import loss
from msdm_train.training.checkpoint import read_info, read_tensors
from msdm_train.training.config import FitConfig
from msdm_train.training.fit import fit

#: A run of a second: every step is logged, no step validates.
CONFIG = FitConfig(
    steps=6, batch=2, crop_px=16, warmup_steps=2, seed=3, save_every=100, log_every=1, validate_every=100
)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps its settings for the life of the process, mixed precision among them."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def whole_run(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted."""
    torch.set_num_threads(1)  # this runs before the fixture of each test that does it
    run = tmp_path_factory.mktemp("fit") / "whole"
    fit(small_pack, run, CONFIG, model="tiny")
    return run


def losses(run: Path, name: str = "train/total") -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if name in line]
    assert len(steps) == len(set(steps)), "a step stands in the log twice"
    return {line["step"]: line[name] for line in lines if name in line}


def tensors_of(run: Path) -> dict[str, Tensor]:
    folder = run / "checkpoint"
    return {**read_tensors(folder / "training.safetensors"), **read_tensors(folder / "model.safetensors")}


def different(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


class Killed(Exception):
    """The process ends here."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ends the process in the midst of that optimizer step."""
    calls: list[int] = []

    def until(*args: Any, really: Any = loss.edm_loss) -> Any:
        calls.append(1)
        if len(calls) == step:
            raise Killed
        return really(*args)

    monkeypatch.setattr(loss, "edm_loss", until)


def test_a_run_learns_and_says_what_it_is(whole_run: Path, small_pack: Path) -> None:
    assert list(losses(whole_run)) == [1, 2, 3, 4, 5, 6]
    info = read_info(whole_run / "checkpoint")
    pack = Pack(small_pack)
    assert (info.step, info.training["run_step"]) == (6, 6)
    assert info.data["licence"] == "CC0-1.0"
    assert info.data["trained_on_fields"] == ["t1", "t2"]
    assert info.data["statistics"] == pack.info.statistics
    statistics = pack.info.statistics
    assert list(info.model.state_std) == statistics["component_std"] + statistics["state_std"][3:]
    assert info.training["config"]["seed"] == 3
    assert list((whole_run / "tensorboard").iterdir())
    tensors = tensors_of(whole_run)
    raw = {name.removeprefix("model."): tensors[name] for name in tensors if name.startswith("model.")}
    assert all(value.isfinite().all() for value in tensors.values())
    # The averaged weights lag behind the raw ones.
    assert different(raw, {name: tensors[name] for name in raw})


def test_the_same_run_again_is_the_same_to_the_bit(whole_run: Path, small_pack: Path, tmp_path: Path) -> None:
    fit(small_pack, tmp_path, CONFIG, model="tiny")
    assert losses(tmp_path) == losses(whole_run)
    assert different(tensors_of(tmp_path), tensors_of(whole_run)) == []
    other = tmp_path / "other"
    fit(small_pack, other, replace(CONFIG, seed=4, steps=1), model="tiny")
    assert losses(other)[1] != losses(whole_run)[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_killed_run_goes_on_with_the_same_losses(
    whole_run: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Weights, averages and moments too, to the bit; validation in between draws random numbers of its own."""
    config = replace(CONFIG, save_every=2, validate_every=2, workers=workers)
    with monkeypatch.context() as patched:
        kill_at(patched, 4)  # after the save and the validation of step 2
        with pytest.raises(Killed):
            fit(small_pack, tmp_path, config, model="tiny")
    assert list(losses(tmp_path)) == [1, 2, 3]
    assert read_info(tmp_path / "checkpoint").training["run_step"] == 2
    fit(small_pack, tmp_path, config)
    assert losses(tmp_path) == losses(whole_run)
    assert different(tensors_of(tmp_path), tensors_of(whole_run)) == []
    assert list(losses(tmp_path, "val/given_maps")) == [2, 4, 6]


def test_a_run_killed_in_the_swap_of_its_checkpoint_goes_on(whole_run: Path, small_pack: Path, tmp_path: Path) -> None:
    fit(small_pack, tmp_path, replace(CONFIG, steps=6, save_every=3), model="tiny")
    # What a crash between the two moves leaves: the last checkpoint aside, nothing in its place.
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    fit(small_pack, tmp_path, replace(CONFIG, steps=7, save_every=3))
    assert list(losses(tmp_path)) == list(range(1, 8))
    assert read_info(tmp_path / "checkpoint").step == 7
    assert not (tmp_path / "checkpoint.old").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def breaks(*args: Any, really: Any = loss.edm_loss) -> Any:
        calls.append(1)
        parts = really(*args)
        return parts._replace(total=parts.total * float("nan")) if len(calls) == 5 else parts

    monkeypatch.setattr(loss, "edm_loss", breaks)
    with pytest.raises(NumericsError, match="loss is nan at step 5"):
        fit(small_pack, tmp_path, replace(CONFIG, save_every=2), model="tiny")
    assert read_info(tmp_path / "checkpoint").step == 4
    assert all(value.isfinite().all() for value in tensors_of(tmp_path).values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch": 3}, "batch: 2 -> 3"),
        ({"learning_rate": 1e-4, "seed": 0}, r"learning_rate: 0\.0012 -> 0\.0001, seed: 3 -> 0"),
        ({"steps": 5}, "has already made 6 steps"),
    ],
)
def test_other_settings_on_resume(whole_run: Path, small_pack: Path, changed: dict[str, Any], message: str) -> None:
    before = tensors_of(whole_run)
    with pytest.raises(RequestError, match=message):
        fit(small_pack, whole_run, replace(CONFIG, **changed))
    assert different(before, tensors_of(whole_run)) == []


def test_another_model_or_other_data_on_resume(
    whole_run: Path, small_pack: Path, draw_field: Callable[..., Field], pack_of: Callable[..., Path]
) -> None:
    with pytest.raises(RequestError, match="--model small is not the model of the checkpoint"):
        fit(small_pack, whole_run, CONFIG, model="small")
    with pytest.raises(RequestError, match="fields of the data set drawn"):
        fit(pack_of(draw_field("x", "train")), whole_run, CONFIG)


def test_a_finished_run_is_left_as_it_is(whole_run: Path, small_pack: Path) -> None:
    before = (whole_run / "checkpoint" / "checkpoint.json").stat().st_mtime_ns
    fit(small_pack, whole_run, CONFIG)
    assert (whole_run / "checkpoint" / "checkpoint.json").stat().st_mtime_ns == before


def test_init_starts_from_the_averaged_weights(
    whole_run: Path, tmp_path: Path, draw_field: Callable[..., Field], pack_of: Callable[..., Path]
) -> None:
    """On other data, without a val split, and with a rate of next to nothing: the weights stay."""
    pack = pack_of(draw_field("x", "train", 32, description="zebrafish", seed=9))
    config = replace(CONFIG, steps=2, learning_rate=1e-12, validate_every=1)
    run = tmp_path / "run"
    fit(pack, run, config, init=whole_run / "checkpoint")
    found, start = tensors_of(run), read_tensors(whole_run / "checkpoint" / "model.safetensors")
    # Adam moves each weight by the rate at most.
    assert all(torch.allclose(found[name], start[name], rtol=0, atol=1e-11) for name in start)
    assert all(torch.allclose(found[f"model.{name}"], start[name], rtol=0, atol=1e-11) for name in start)
    info, first = read_info(run / "checkpoint"), read_info(whole_run / "checkpoint")
    assert (info.step, info.training["run_step"]) == (8, 2)
    assert info.model == first.model  # the data scale is a part of the weights' meaning
    assert info.data["trained_on_fields"] == ["x"]
    assert [entry["seed"] for entry in info.training["history"]] == [3]
    assert info.training["history"][0]["steps"] == 6
    for name in ("checkpoint/tokenizer.json", "tokenizer.json"):
        assert (run / name).read_bytes() == (whole_run / "checkpoint" / "tokenizer.json").read_bytes()
    # The same command resumes.
    fit(pack, run, replace(config, steps=3), init=whole_run / "checkpoint")
    assert read_info(run / "checkpoint").step == 9


def test_the_average_of_an_initialised_run_counts_its_past(whole_run: Path, small_pack: Path, tmp_path: Path) -> None:
    """Six steps were made before, so step 7 enters with 1 - (1 - 1/7)^(gamma + 1), not with all its weight."""
    fit(small_pack, tmp_path, replace(CONFIG, steps=1), init=whole_run / "checkpoint")
    found, start = tensors_of(tmp_path), read_tensors(whole_run / "checkpoint" / "model.safetensors")
    beta = (1 - 1 / 7) ** (CONFIG.ema_gamma + 1)
    for name in start:
        # One lerp in float32 of weights of size one.
        torch.testing.assert_close(
            found[name], beta * start[name] + (1 - beta) * found[f"model.{name}"], rtol=1e-5, atol=1e-6
        )
    assert different({name: found[f"model.{name}"] for name in start}, start)


def test_init_from_nothing(small_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none is not a checkpoint"):
        fit(small_pack, tmp_path / "run", CONFIG, init=tmp_path / "none")
    with pytest.raises(RequestError, match="crop_px 18"):
        fit(small_pack, tmp_path / "run", replace(CONFIG, crop_px=18), model="tiny")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    with pytest.raises(InputError, match="is not a checkpoint"):  # and is not overwritten
        fit(small_pack, tmp_path / "run", CONFIG, model="tiny")


def test_mixed_precision(small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(small_pack, tmp_path / "half", replace(CONFIG, steps=2, mixed_precision="bf16"), model="tiny")
    AcceleratorState._reset_state(reset_partial_state=True)
    fit(small_pack, tmp_path / "full", replace(CONFIG, steps=2), model="tiny")
    half, full = losses(tmp_path / "half"), losses(tmp_path / "full")
    # bfloat16 keeps 8 bits; at the start the network's share of D is small.
    assert half == pytest.approx(full, rel=2**-8)
    assert half != full
    assert all(
        value.dtype == torch.float32 for value in read_tensors(tmp_path / "half/checkpoint/model.safetensors").values()
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RequestError, match="fp16 needs a GPU"):
        fit(small_pack, tmp_path / "fp16", replace(CONFIG, mixed_precision="fp16"), model="tiny")


def test_the_command(small_pack: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["fit", str(small_pack), "--out", str(run), "--model", "tiny", "--steps", "2", "--batch", "2"]
    command += ["--crop", "16"]
    told = CliRunner().invoke(main, [*command, "--dry-run"], catch_exceptions=False)
    assert told.exit_code == 0
    assert not run.exists()
    assert "starts anew, preset tiny, to step 2" in told.output
    assert "crop_px = 16" in told.output
    assert "154,550 in all" in told.output
    assert "GFLOP a training step of 2 crops" in told.output
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert f"checkpoint: {run / 'checkpoint'}" in done.output
    told = CliRunner().invoke(main, [*command, "--dry-run"], catch_exceptions=False)
    assert "resumes after step 2" in told.output
    refused = CliRunner().invoke(main, [*command, "--seed", "1", "--dry-run"])
    assert refused.exit_code == RequestError.exit_code
    assert "seed: 0 -> 1" in refused.output

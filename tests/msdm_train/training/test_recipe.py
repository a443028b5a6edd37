from __future__ import annotations

from pathlib import Path

import pytest

from msdm_engine.errors import InputError, RequestError
from msdm_train.training.config import FitConfig, Part, parse_curriculum, with_defaults
from msdm_train.training.recipe import read_recipe

CONFIGS = Path(__file__).parents[3] / "configs"


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_recipes_of_the_project_load(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.model is not None
    assert sum(part.steps for part in recipe.settings.curriculum) < recipe.settings.steps


def test_there_are_recipes() -> None:
    assert len(list(CONFIGS.glob("*.yaml"))) == 3


def test_a_recipe_and_what_stands_above_it(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "model: tiny\nsettings:\n  steps: 100\n  learning_rate: 1\n"
        "  curriculum:\n    - {crop_px: 16, batch: 8, steps: 10}\n",
    )
    recipe = read_recipe(path, {"steps": 7})
    assert (recipe.model, recipe.processes) == ("tiny", 1)
    assert recipe.settings == FitConfig(7, learning_rate=1.0, curriculum=(Part(16, 8, 10),))
    assert FitConfig.from_json(recipe.settings.to_json()) == recipe.settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settings: {steps: 5, leaning_rate: 0.1}", "r.yaml: unknown setting 'leaning_rate'\n.*learning_rate"),
        ("settings: {steps: 5}\nmodle: tiny", "unknown key 'modle'\n.*model"),
        ("settings: {steps: 5}\nmodel: tinny", "unknown preset 'tinny'\n.*tiny"),
        ("settings: {steps: 5}\nprocesses: 0", "processes is 0"),
        ("settings: {batch: 5}", "'steps' is missing"),
        ("settings: {steps: five}", "steps is 'five'\n.*int"),
        ("settings: {steps: 5, tune_text_encoder: 1}", "tune_text_encoder is 1\n.*bool"),
        ("settings: {steps: 5, curriculum: 3}", "curriculum is 3"),
        ("settings: {steps: 5, curriculum: [3]}", "curriculum: 3"),
        ("settings: {steps: 5, curriculum: [{crop: 3}]}", "unknown setting 'crop'\n.*crop_px"),
        ("settings: {steps: 5, curriculum: [{crop_px: 3}]}", "'batch' is missing"),
        ("settings: {steps: 5, curriculum: [{crop_px: 3, batch: 0, steps: 1}]}", "batch is 0"),
        ("- 1", "a mapping of model"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_recipe(write(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml cannot be read"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(write(tmp_path, "a: [1"))


def test_a_curriculum_as_text() -> None:
    assert parse_curriculum("64:16:2000,96:8:1750,128:5") == ((Part(64, 16, 2000), Part(96, 8, 1750)), (128, 5))
    assert parse_curriculum("128:5") == ((), (128, 5))


@pytest.mark.parametrize("text", ["", "64", "64:16:2000", "64:16,128:5", "64:x:5,128:5", "64:16:20,128:5:3"])
def test_a_curriculum_that_is_none(text: str) -> None:
    with pytest.raises(RequestError, match="CROP:BATCH:STEPS"):
        parse_curriculum(text)


def test_the_crops_of_each_step() -> None:
    config = FitConfig(9, batch=2, crop_px=32, curriculum=(Part(16, 8, 3), Part(24, 4, 2)))
    crops = [config.crops_at(step) for step in range(1, 10)]
    assert crops == [(16, 8)] * 3 + [(24, 4)] * 2 + [(32, 2)] * 4
    assert config.all_crops() == [(16, 8), (24, 4), (32, 2)]


def test_settings_that_are_younger_than_a_checkpoint() -> None:
    old = {"steps": 5, "batch": 2}
    assert FitConfig.from_json(with_defaults(old)) == FitConfig(5, batch=2)

"""Recipes: a training run as a YAML file, for ``msdm-train fit --recipe``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from msdm_engine.errors import InputError, RequestError, nearest
from msdm_train.model.config import PRESETS
from msdm_train.training.config import FitConfig


@dataclass(frozen=True)
class Recipe:
    """A run: ``model`` names a preset (None: that of the checkpoint), ``processes`` says for how many it is meant."""

    settings: FitConfig
    model: str | None = None
    processes: int = 1


def read_recipe(path: Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        path: a YAML mapping of ``model``, ``processes`` and ``settings`` (as :class:`FitConfig`).
        changes: settings that stand above those of the file.

    Raises:
        InputError: the file cannot be read.
        RequestError: an unknown key or an illegal value, with the file's name.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"recipe {path} cannot be read: {error}") from error
    if not isinstance(raw, Mapping) or not isinstance(raw.get("settings"), Mapping):
        raise RequestError(f"recipe {path}", note="a mapping of model, processes and settings (a mapping)")
    legal = ("model", "processes", "settings")
    try:
        for key in raw:
            if key not in legal:
                raise RequestError(f"unknown key '{key}'", note=nearest(str(key), legal))
        model, processes = raw.get("model"), raw.get("processes", 1)
        if model is not None and model not in PRESETS:
            raise RequestError(f"unknown preset '{model}'", note=nearest(str(model), PRESETS))
        if type(processes) is not int or processes < 1:
            raise RequestError(f"processes is {processes!r}", note="a whole number, at least 1")
        return Recipe(FitConfig.from_json({**raw["settings"], **(changes or {})}), model, processes)
    except RequestError as error:
        raise RequestError(f"recipe {path}: {error.what}", note=error.note, hint=error.hint) from error

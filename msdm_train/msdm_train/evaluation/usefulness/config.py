"""What the experiment is, as numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from msdm_engine.errors import RequestError
from msdm_engine.sampling.schedule import karras_sigmas, solver_table
from msdm_train.model.config import preset
from msdm_train.segmentation.config import SegmenterConfig
from msdm_train.training.config import FitConfig


@dataclass(frozen=True)
class GeneratorConfig:
    """The generator of a cell, trained from nothing.

    Args:
        model: name of a preset: ``tiny`` is the cheap one, ``small`` that of the reference bundle.
        fit: its training; the fields are those of the cell.
        pairs: generated for each synthetic set, columnar or other.
        side_px: of the pairs.
        solver, sampling_steps, sigma_min: of the sampling; see :mod:`msdm_engine.sampling.schedule`. Few stochastic
            steps that end early: a generator of minutes removes little noise at low levels, and deterministic steps
            there keep it.
    """

    model: str
    fit: FitConfig
    pairs: int = 96
    side_px: int = 128
    solver: str = "euler-ancestral"
    sampling_steps: int = 12
    sigma_min: float = 0.1

    def __post_init__(self) -> None:
        stride = preset(self.model).stride
        if self.side_px % stride or self.side_px < 64:
            raise RequestError(f"side_px is {self.side_px}", note=f"a multiple of {stride}, at least 64")
        if self.pairs < 1:
            raise RequestError(f"pairs is {self.pairs}", note="at least 1")
        self.table()

    def table(self) -> np.ndarray:
        """The solver's table; an illegal solver, number of steps or noise level is a RequestError."""
        return solver_table(self.solver, karras_sigmas(self.sampling_steps, sigma_min=self.sigma_min))


@dataclass(frozen=True)
class Protocol:
    """The whole experiment.

    Args:
        folds: of the fields of train and val together.
        fractions: shares of the training fields of a fold whose labels are used.
        seeds: segmenters trained of each arm, seeds 0 to ``seeds`` - 1.
        synthetic_share: share of synthetic crops in the arms that mix; a quarter about doubles the share of columnar
            crops in the reference data.
        segmenter: of all arms; its seed and augmentation are those of the part.
    """

    folds: int
    fractions: tuple[float, ...]
    seeds: int
    synthetic_share: float
    generator: GeneratorConfig
    segmenter: SegmenterConfig

    def __post_init__(self) -> None:
        if not self.fractions or sorted(set(self.fractions)) != list(self.fractions):
            raise RequestError(f"label fractions {self.fractions}", note="rising, each once")
        if self.seeds < 1:
            raise RequestError(f"{self.seeds} seeds", note="at least 1")
        if not 0 < self.synthetic_share < 1:
            raise RequestError(f"synthetic_share is {self.synthetic_share}", note="between 0 and 1")

    def to_json(self) -> dict[str, Any]:
        """As plain values, equal to what a JSON file gives back."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


#: Training of the generator: preset, steps, batch, peak learning rate.
_TRAINING = {"tiny": (3000, 16, 2e-3), "mini": (2400, 8, 1.5e-3), "small": (8000, 16, 1.2e-3)}


def fractions_of(text: str) -> tuple[float, ...]:
    """``0.25,1`` -> (0.25, 1.0)."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise RequestError(f"label fractions '{text}'", note="numbers above 0, up to 1, such as 0.25,1") from error


def generator_config(model: str, *, steps: int | None = None, pairs: int = 96) -> GeneratorConfig:
    """The generator of that preset with the training that the experiment was planned with.

    Raises:
        RequestError: an unknown preset, or one without a plan and without ``steps``.
    """
    preset(model)
    planned, batch, rate = _TRAINING.get(model, (None, 16, 1.2e-3))
    steps = planned if steps is None else steps
    if steps is None:
        raise RequestError(f"no number of steps is planned for the generator '{model}'", hint="give --generator-steps")
    fit = FitConfig(steps, batch, learning_rate=rate, save_every=200, mixed_precision="bf16")
    return GeneratorConfig(model, fit, pairs)


def key_of(*facts: object) -> str:
    """16 hexadecimal digits that change with any of the facts (plain JSON values)."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=asdict).encode()).hexdigest()[:16]

"""Settings of a training run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from msdm_engine.errors import RequestError, nearest
from msdm_train.data.batches import Augment, ConditionDropout
from msdm_train.training.loss import Noise

#: Settings that may change when a run goes on: they decide when it ends or stops, not what a step computes.
FREE_ON_RESUME = ("steps", "workers", "spike_factor", "spike_window", "score_every", "score_windows")


@dataclass(frozen=True)
class Part:
    """A stretch of a run with its own crops: side in pixels, crops a step and process, number of steps."""

    crop_px: int
    batch: int
    steps: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if type(value) is not int or value < 1:
                raise RequestError(f"curriculum: {name} is {value!r}", note="a whole number, at least 1")


@dataclass(frozen=True)
class FitConfig:
    """Settings of one run.

    Args:
        steps: optimizer steps of this run, those of ``curriculum`` included.
        batch: crops a step and process.
        crop_px: side of the square crops; a multiple of the model's stride.
        curriculum: earlier parts of the run with crops of their own; ``crop_px`` and ``batch`` hold after them, and
            validation always uses these.
        learning_rate: peak of Adam's rate; warmed up over ``warmup_steps``, then falling as
            1 / sqrt(step / ``decay_after_steps``) (EDM2, equation 67), and linearly to zero over the last
            ``cooldown_share`` of the run.
        ema_gamma: see :class:`~msdm_train.training.ema.PowerEma`.
        ema_also: gammas of further averages that are kept beside it, for ``msdm-train ema``.
        noise_mean, noise_std: see :class:`~msdm_train.training.loss.Noise`.
        drop_morphology, drop_colour, drop_text: see :class:`~msdm_train.data.batches.ConditionDropout`.
        scale_probability, scale_max, stain_probability, stain_strength: see :class:`~msdm_train.data.batches.Augment`.
        save_every, log_every, validate_every: steps.
        mixed_precision: ``no``, ``bf16`` or ``fp16`` (accelerate).
        workers: data loading processes.
        spike_factor, spike_window: see :class:`~msdm_train.training.guard.Guard`; factor 0 turns it off.
        score_every, score_windows: see :mod:`msdm_train.training.score`; steps (0: never) and windows of ``val``.
        text_encoder: pretrained BERT to start from, a folder or a name; empty: a small one is trained along.
        tune_text_encoder: whether a pretrained BERT is trained too; else it is frozen.
    """

    steps: int
    batch: int = 16
    crop_px: int = 64
    curriculum: tuple[Part, ...] = ()
    learning_rate: float = 1.2e-3
    warmup_steps: int = 200
    decay_after_steps: int = 3000
    cooldown_share: float = 0.15
    ema_gamma: float = 6.94
    ema_also: tuple[float, ...] = ()
    noise_mean: float = -0.9
    noise_std: float = 1.4
    drop_morphology: float = 0.15
    drop_colour: float = 0.15
    drop_text: float = 0.2
    scale_probability: float = 0.3
    scale_max: float = 1.2
    stain_probability: float = 0.4
    stain_strength: float = 0.12
    seed: int = 0
    save_every: int = 500
    log_every: int = 20
    validate_every: int = 500
    mixed_precision: str = "no"
    workers: int = 0
    spike_factor: float = 3.0
    spike_window: int = 50
    score_every: int = 0
    score_windows: int = 12
    text_encoder: str = ""
    tune_text_encoder: bool = False

    def __post_init__(self) -> None:
        at_least_1 = ("steps", "batch", "crop_px", "warmup_steps", "save_every", "log_every", "validate_every")
        for name in (*at_least_1, "spike_window", "score_windows"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("seed", "workers", "score_every", "stain_strength"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        for name in ("learning_rate", "noise_std", "ema_gamma"):
            self._check(name, getattr(self, name) > 0, "above 0")
        drops = ("drop_morphology", "drop_colour", "drop_text")
        for name in ("cooldown_share", "scale_probability", "stain_probability", *drops):
            self._check(name, 0 <= getattr(self, name) <= 1, "0 to 1")
        self._check("noise_mean", math.isfinite(self.noise_mean), "a number")
        self._check("scale_max", self.scale_max >= 1, "at least 1")
        self._check("spike_factor", self.spike_factor == 0 or self.spike_factor > 1, "above 1, or 0 for no check")
        self._check("ema_also", all(gamma > 0 for gamma in self.ema_also), "above 0 each")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise RequestError(f"mixed precision '{self.mixed_precision}'", note="legal: no, bf16, fp16")

    def _check(self, name: str, legal: bool, note: str) -> None:
        if not legal:
            raise RequestError(f"{name} is {getattr(self, name)}", note=note)

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> FitConfig:
        """Reads settings; an unknown one names the nearest legal one, one of another type what it should be."""
        known = {f.name: f for f in fields(FitConfig)}
        values: dict[str, Any] = {}
        for name, value in raw.items():
            if name not in known:
                raise RequestError(f"unknown setting '{name}'", note=nearest(name, known))
            values[name] = _read(name, value, known[name].default)
        if "steps" not in values:
            raise RequestError("the setting 'steps' is missing", note="the number of optimizer steps")
        return FitConfig(**values)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; see :func:`with_defaults`."""
        return json.loads(json.dumps(asdict(self)))

    def rate(self, step: int, done_before: int) -> float:
        """Learning rate of step 1, 2, ...; ``done_before`` steps were made by runs that this one goes on from."""
        decay = math.sqrt(max((step + done_before) / self.decay_after_steps, 1))
        left = (self.steps - step + 1) / max(self.cooldown_share * self.steps, 1)
        return self.learning_rate * min(step / self.warmup_steps, 1) * min(left, 1) / decay

    def crops_at(self, step: int) -> tuple[int, int]:
        """Side in pixels and crops a process of step 1, 2, ..."""
        end = 0
        for part in self.curriculum:
            end += part.steps
            if step <= end:
                return part.crop_px, part.batch
        return self.crop_px, self.batch

    def all_crops(self) -> list[tuple[int, int]]:
        """Every (side, crops) of the run, the last one last."""
        return list(dict.fromkeys([*((p.crop_px, p.batch) for p in self.curriculum), (self.crop_px, self.batch)]))

    def noise(self) -> Noise:
        """How noise levels are drawn."""
        return Noise(self.noise_mean, self.noise_std)

    def dropout(self) -> ConditionDropout:
        """How often each condition is dropped."""
        return ConditionDropout(self.drop_morphology, self.drop_colour, self.drop_text)

    def augment(self) -> Augment:
        """How crops are varied."""
        return Augment(self.scale_probability, self.scale_max, self.stain_probability, self.stain_strength)


def with_defaults(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a checkpoint holds them; one that is younger than the checkpoint had what is now its default."""
    defaults = {f.name: f.default for f in fields(FitConfig) if f.default is not MISSING}
    return {**json.loads(json.dumps(defaults)), **stored}


def _read(name: str, value: Any, default: Any) -> Any:
    """A value of JSON or YAML as the type of the setting's default."""
    if name == "curriculum":
        if not isinstance(value, list | tuple):
            raise RequestError(f"curriculum is {value!r}", note="a list of crop_px, batch, steps")
        return tuple(part if isinstance(part, Part) else _part(part) for part in value)
    if name == "ema_also" and isinstance(value, list | tuple):
        return tuple(float(_read("ema_gamma", gamma, 0.0)) for gamma in value)
    kind = int if name == "steps" else type(default)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise RequestError(f"{name} is {value!r}", note=f"its type is {kind.__name__}")
    return value


def _part(raw: Any) -> Part:
    legal = [f.name for f in fields(Part)]
    if not isinstance(raw, Mapping):
        raise RequestError(f"curriculum: {raw!r}", note=f"a mapping with {', '.join(legal)}")
    for key in raw:
        if key not in legal:
            raise RequestError(f"curriculum: unknown setting '{key}'", note=nearest(str(key), legal))
    for key in legal:
        if key not in raw:
            raise RequestError(f"curriculum: '{key}' is missing", note=f"each part has {', '.join(legal)}")
    return Part(**raw)


def parse_curriculum(text: str) -> tuple[tuple[Part, ...], tuple[int, int]]:
    """Reads ``64:16:2000,96:8:1750,128:5``: side, crops and steps of each part; the last part has no steps.

    Returns:
        the earlier parts, and (side, crops) of the last one.
    """
    *earlier, last = [part.split(":") for part in text.split(",")]
    try:
        if [len(part) for part in earlier] != [3] * len(earlier) or len(last) != 2:
            raise ValueError(text)
        numbers = [[int(number) for number in part] for part in (*earlier, last)]
    except ValueError as error:
        raise RequestError(
            f"curriculum '{text}'", note="CROP:BATCH:STEPS,...,CROP:BATCH, such as 64:16:2000,96:8:1750,128:5"
        ) from error
    return tuple(Part(*part) for part in numbers[:-1]), (numbers[-1][0], numbers[-1][1])

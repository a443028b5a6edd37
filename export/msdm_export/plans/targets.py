"""Compute capabilities that plans are built for, and what each of them lacks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from msdm_engine.bundle.plan_spec import DATA_CENTRE_TARGETS
from msdm_engine.errors import RequestError, nearest

#: Capabilities that TensorRT for RTX names (version 1.7); a newer one is asked for its own list.
RTX_TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")
#: Capabilities of GPUs that TensorRT 10 and 11 build for, on a machine with such a GPU.
TENSORRT_TARGETS = (
    "sm_75",
    "sm_80",
    "sm_86",
    "sm_87",
    "sm_89",
    "sm_90",
    "sm_100",
    "sm_103",
    "sm_110",
    "sm_120",
    "sm_121",
)
#: FP8 needs Ada or later.
FP8_FROM = (8, 9)


@dataclass(frozen=True, order=True)
class Target:
    """A compute capability, as in 8.9."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"sm_{self.major}{self.minor}"


def parse_target(word: str, backend: str, trt: Any = None) -> Target:
    """``sm_89`` -> Target(8, 9); refuses what the backend has no code for.

    Args:
        trt: the imported TensorRT, whose own list of capabilities is asked where it has one.

    Raises:
        RequestError: not of this form, or unknown to the backend.
    """
    legal = targets_of(backend, trt)
    if word not in legal:
        hopper = " (TensorRT for RTX runs on no data-centre GPU: use --backend tensorrt there)"
        note = nearest(word, legal) + (hopper if word in TENSORRT_TARGETS and backend == "tensorrt-rtx" else "")
        raise RequestError(f"unknown target '{word}' of the backend '{backend}'", note=note)
    digits = word.removeprefix("sm_")
    return Target(int(digits[:-1]), int(digits[-1]))


def targets_of(backend: str, trt: Any = None) -> tuple[str, ...]:
    """All targets of a backend, oldest first."""
    if backend == "tensorrt":
        return TENSORRT_TARGETS
    named = [name for name in dir(getattr(trt, "ComputeCapability", None)) if re.fullmatch(r"SM\d+", name)]
    return tuple(sorted((f"sm_{name[2:]}" for name in named), key=lambda word: int(word[3:]))) or RTX_TARGETS


def backend_of(target: str) -> str:
    """What runs plans on a GPU of this capability: ``tensorrt-rtx``, or ``tensorrt`` where that does not run."""
    return "tensorrt-rtx" if target in RTX_TARGETS and target not in DATA_CENTRE_TARGETS else "tensorrt"


def check_precision(precision: str, targets: list[Target]) -> None:
    """Refuses FP8 for a capability that has no such arithmetic."""
    for target in targets:
        if precision == "fp8" and (target.major, target.minor) < FP8_FROM:
            raise RequestError(
                f"precision fp8 for {target}",
                note=f"FP8 needs compute capability {FP8_FROM[0]}.{FP8_FROM[1]} or later",
                hint="build this target with --precision fp16",
            )

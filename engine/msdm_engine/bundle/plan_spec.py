"""A compiled plan as the manifest lists it, and its typed reading."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from msdm_engine.bundle.manifest_checks import free, keys, malformed, mapping, sequence, sha256, text, whole

#: Runtimes that execute plans, and what they are called in messages.
PLAN_BACKENDS = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
#: Precisions of graphs with quantise/dequantise nodes, whose rest is in another one.
QUANTIZED = ("int8", "fp8")
PLAN_PRECISIONS = ("float32", "fp16", "bf16", *QUANTIZED)
#: Capabilities of data-centre GPUs, where TensorRT for RTX runs nothing, although it compiles for sm_80.
DATA_CENTRE_TARGETS = ("sm_80", "sm_90", "sm_100", "sm_103")
#: Plans lie in this folder of the bundle.
PLAN_FOLDER = "plans"
MAX_PLAN_BYTES = 8 * 2**30
_TARGET = re.compile(r"sm_[1-9][0-9]{1,2}")
_FILE = re.compile(rf"{PLAN_FOLDER}/[A-Za-z0-9][A-Za-z0-9_.-]*\.plan")

#: Smallest, optimal and largest value of a dimension.
Range = tuple[int, int, int]


@dataclass(frozen=True)
class PlanSpec:
    """One graph compiled for one compute capability, precision and shape profile.

    Args:
        file: ``plans/NAME.plan``, relative to the bundle.
        size, sha256: of that file.
        graph: name of the graph in the manifest.
        graph_sha256: of the graph's file at the time of the build; a plan of another graph is refused.
        compiled_sha256: of the ONNX bytes that were compiled: the graph in the plan's precision.
        backend: a key of :data:`PLAN_BACKENDS`.
        version: of TensorRT; a plan is loaded by exactly this one.
        target: compute capability, as in ``sm_89``.
        precision: of :data:`PLAN_PRECISIONS`.
        profile: dynamic dimension of the graph's inputs -> (smallest, optimal, largest).
        options: what else decided the bytes: builder level, workspace, allocation and specialisation for capture.
        build: what the build measured: seconds, layers by type and precision. Decides nothing.
    """

    file: str
    size: int
    sha256: str
    graph: str
    graph_sha256: str
    compiled_sha256: str
    backend: str
    version: str
    target: str
    precision: str
    profile: dict[str, Range]
    options: dict[str, Any] = field(default_factory=dict)
    build: dict[str, Any] = field(default_factory=dict)

    @property
    def static(self) -> bool:
        """Whether every dimension is fixed, so that a CUDA graph of it never needs to be captured again."""
        return all(low == high for low, _, high in self.profile.values())

    def fits(self, dimensions: dict[str, int]) -> bool:
        """Whether the plan runs these values of the graph's dynamic dimensions."""
        return dimensions.keys() == self.profile.keys() and all(
            low <= dimensions[name] <= high for name, (low, _, high) in self.profile.items()
        )

    def made_alike(self, other: PlanSpec) -> bool:
        """Whether both have equal inputs: everything but the file's bytes and what the build measured."""
        outcome = ("size", "sha256", "build")
        return all(getattr(self, name) == getattr(other, name) for name in vars(self) if name not in outcome)


def read_plan(raw: Any, where: str) -> PlanSpec:
    """Reads one entry of ``plans``; raises BundleError with its place."""
    names = [name for name in PlanSpec.__dataclass_fields__ if name not in ("options", "build")]
    entry = keys(raw, where, names, ("options", "build"))
    words = {name: text(entry[name], f"{where} {name}") for name in ("file", "graph", "backend", "version")}
    words |= {name: text(entry[name], f"{where} {name}") for name in ("target", "precision")}
    for name, legal in (("backend", PLAN_BACKENDS), ("precision", PLAN_PRECISIONS)):
        if words[name] not in legal:
            raise malformed(f"{where} {name}", f"is '{words[name]}', not one of {', '.join(legal)}")
    if not _TARGET.fullmatch(words["target"]):
        raise malformed(f"{where} target", f"is '{words['target']}', not as in sm_89")
    if not _FILE.fullmatch(words["file"]):
        raise malformed(f"{where} file", f"is '{words['file']}', not {PLAN_FOLDER}/NAME.plan")
    hashes = {name: sha256(entry[name], f"{where} {name}") for name in ("sha256", "graph_sha256", "compiled_sha256")}
    return PlanSpec(
        size=whole(entry["size"], f"{where} size", 1, MAX_PLAN_BYTES),
        profile=mapping(entry["profile"], f"{where} profile", _range),
        options=free(entry.get("options", {}), f"{where} options"),
        build=free(entry.get("build", {}), f"{where} build"),
        **words,
        **hashes,
    )


def _range(raw: Any, where: str) -> Range:
    values = sequence(raw, where, lambda value, at: whole(value, at, 1, 2**31))
    if len(values) != 3 or not values[0] <= values[1] <= values[2]:
        raise malformed(where, f"is {list(values)}, not [smallest, optimal, largest]")
    return values[0], values[1], values[2]

"""Plans in the manifest: read, verified when asked for, and refused where they do not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from msdm_engine import Bundle
from msdm_engine.bundle.manifest import Manifest
from msdm_engine.bundle.plan_spec import PlanSpec
from msdm_engine.bundle.plans import find_plan
from msdm_engine.contract import DENOISER
from msdm_engine.errors import BackendError, BundleError

PLAN = b"a plan, as far as the engine knows"
SHAPE = {"batch": 2, "branches": 1, "rows": 4, "columns": 4}
Edit = Callable[[Callable[[dict[str, Any]], Any]], Path]


def spec_for(folder: Path, **changes: Any) -> PlanSpec:
    graph = Bundle.open(folder).manifest.files["denoiser.onnx"].sha256
    plan = PlanSpec(
        file="plans/denoiser.plan",
        size=len(PLAN),
        sha256=hashlib.sha256(PLAN).hexdigest(),
        graph=DENOISER,
        graph_sha256=graph,
        compiled_sha256=graph,
        backend="tensorrt-rtx",
        version="1.7.1.116",
        target="sm_89",
        precision="float32",
        profile={name: (value, value, value) for name, value in SHAPE.items()},
    )
    return replace(plan, **changes)


@pytest.fixture
def with_plan(bundle_folder: Path, edit_manifest: Edit) -> Callable[..., Path]:
    """The bundle with one plan, changed as the test asks."""

    def add(**changes: Any) -> Path:
        raw = json.loads(json.dumps(asdict(spec_for(bundle_folder)))) | changes
        (bundle_folder / "plans").mkdir(exist_ok=True)
        (bundle_folder / "plans/denoiser.plan").write_bytes(PLAN)
        return edit_manifest(lambda manifest: manifest.update(plans={"one": raw}))

    return add


def found_in(folder: Path, **changes: Any) -> str:
    asked: dict[str, Any] = {"backend": "tensorrt-rtx", "version": "1.7.1.116", "target": "sm_89"}
    asked |= {"precision": "float32", "dimensions": SHAPE}
    return find_plan(Bundle.open(folder), DENOISER, **asked | changes)


def test_a_manifest_without_plans_is_what_it_was(bundle_folder: Path) -> None:
    text = (bundle_folder / "manifest.json").read_text()
    assert "plans" not in json.loads(text)
    assert Manifest.from_json(text).to_json() == text


def test_a_plan_is_read_and_found(with_plan: Callable[..., Path]) -> None:
    bundle = Bundle.open(with_plan())
    assert bundle.manifest.plans["one"] == spec_for(bundle.folder)
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest
    assert found_in(bundle.folder) == "one"
    assert bundle.plan_bytes("one") == PLAN


def test_plans_are_not_read_when_the_bundle_is_opened(with_plan: Callable[..., Path]) -> None:
    folder = with_plan()
    (folder / "plans/denoiser.plan").unlink()
    bundle = Bundle.open(folder)
    with pytest.raises(BundleError, match=r"lacks the file plans/denoiser\.plan"):
        bundle.plan_bytes("one")
    with pytest.raises(BundleError, match="has no plan 'two'"):
        bundle.plan_bytes("two")


@pytest.mark.parametrize(
    ("data", "said"), [(PLAN[:-1], f"has {len(PLAN) - 1} bytes"), (PLAN[::-1], "does not have the SHA-256")]
)
def test_a_truncated_or_damaged_plan_reaches_no_runtime(data: bytes, said: str, with_plan: Callable[..., Path]) -> None:
    folder = with_plan()
    bundle = Bundle.open(folder)
    (folder / "plans/denoiser.plan").write_bytes(data)
    with pytest.raises(BundleError, match=said):
        bundle.plan_bytes("one")


@pytest.mark.parametrize(
    ("changes", "asked", "said"),
    [
        ({"version": "1.6.0"}, {}, "for version 1.7.1.116\n.*there are plans for version 1.6.0"),
        ({}, {"target": "sm_120"}, "for the compute capability sm_120\n.*there are plans for sm_89"),
        ({"graph_sha256": "0" * 64}, {}, "for the graph as it is now"),
        ({"compiled_sha256": "0" * 64}, {}, "there are plans for a graph 000000000000"),
        ({"profile": {**{n: [v, v, v] for n, v in SHAPE.items()}, "batch": [4, 8, 8]}}, {}, "batch 4 to 8"),
        ({}, {"backend": "tensorrt"}, "for TensorRT\n"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_command(
    changes: dict[str, Any], asked: dict[str, Any], said: str, with_plan: Callable[..., Path]
) -> None:
    folder = with_plan(**changes)
    with pytest.raises(BackendError, match=said) as caught:
        found_in(folder, **asked)
    assert f"msdm-export build {folder}" in str(caught.value)


def test_no_plans_at_all(bundle_folder: Path) -> None:
    with pytest.raises(BackendError, match="the bundle has no plans"):
        found_in(bundle_folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"file": "../denoiser.plan"}, "file is"),
        ({"file": "plans/a/../../x.plan"}, "file is"),
        ({"backend": "cuda"}, "not one of tensorrt, tensorrt-rtx"),
        ({"precision": "half"}, "not one of float32"),
        ({"target": "89"}, "not as in sm_89"),
        ({"size": 0}, "size"),
        ({"profile": {"batch": [2, 1, 3]}}, r"not \[smallest, optimal, largest\]"),
        ({"profile": {"batch": [1]}}, r"not \[smallest, optimal, largest\]"),
        ({"graph": "critic of nothing"}, "which it lacks"),
        ({"surprise": 1}, "unknown key 'surprise'"),
    ],
)
def test_a_malformed_entry_is_refused(changes: dict[str, Any], said: str, with_plan: Callable[..., Path]) -> None:
    folder = with_plan(**changes)
    with pytest.raises(BundleError, match=said):
        Bundle.open(folder)

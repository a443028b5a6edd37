"""The manifest is untrusted: each value has its type and range, and an error names its place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msdm_engine.bundle.manifest import Manifest
from msdm_engine.errors import BundleError, RequestError
from msdm_engine.sampling.guidance import Guidance


@pytest.fixture
def text(bundle_folder: Path) -> str:
    return (bundle_folder / "manifest.json").read_text()


def refused(text: str, change: Callable[[dict[str, Any]], Any]) -> BundleError:
    raw = json.loads(text)
    change(raw)
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(json.dumps(raw))
    return caught.value


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    """Sets the value at a place of the raw manifest."""

    def change(raw: Any) -> None:
        for key in path[:-1]:
            raw = raw[key]
        raw[path[-1]] = value

    return change


def test_the_text_comes_back(text: str) -> None:
    assert Manifest.from_json(text).to_json() == text


@pytest.mark.parametrize("version", [0, 2, "1", None, True, [1]])
def test_an_unknown_format_version_is_refused(text: str, version: object) -> None:
    error = refused(text, put("format", value=version))
    assert f"unknown format version {version!r}" in error.what
    assert "version 1" in str(error.note)


@pytest.mark.parametrize("whole", ["[]", "1", "null", '"x"', "{}"])
def test_a_manifest_that_is_no_manifest_is_refused(whole: str) -> None:
    with pytest.raises(BundleError, match="unknown format version None"):
        Manifest.from_json(whole)


@pytest.mark.parametrize(
    ("place", "typo", "nearest"),
    [
        ((), "text_token", "text_tokens"),
        (("files", "denoiser.onnx"), "sha265", "sha256"),
        (("graphs", "denoiser"), "input", "inputs"),
        (("graphs", "denoiser", "inputs", 0), "shap", "shape"),
        (("presets", "lilac-round"), "color", "colour"),
        (("presets", "lilac-round", "colour"), "foregound", "foreground"),
        (("presets", "lilac-round", "colour", "foreground"), "means", "mean"),
        (("sampling",), "sigma_mx", "sigma_max"),
    ],
)
def test_an_unknown_key_names_the_nearest_legal_one(text: str, place: tuple[Any, ...], typo: str, nearest: str) -> None:
    error = refused(text, put(*place, typo, value=1))
    assert f"unknown key '{typo}'" in error.what
    assert f"did you mean '{nearest}'" in str(error.note)


@pytest.mark.parametrize("key", ["name", "stride", "files", "graphs", "presets", "sampling", "data", "tools"])
def test_a_missing_key_is_named(text: str, key: str) -> None:
    assert key in refused(text, lambda raw: raw.pop(key)).what


@pytest.mark.parametrize("key", ["name", "licence", "source"])
def test_data_has_name_licence_and_source(text: str, key: str) -> None:
    assert f"data '{key}'" in refused(text, lambda raw: raw["data"].pop(key)).what


DENOISER = ("graphs", "denoiser")
ROUND = ("presets", "lilac-round")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), 3),
        (("name",), "line\nbreak"),
        (("name",), "nul\0"),
        (("name",), "half of a pair \ud800"),
        (("name",), "x" * 3000),
        (("stride",), 0),
        (("stride",), 16.0),
        (("stride",), True),
        (("stride",), "16"),
        (("text_tokens",), 10**9),
        (("state_channels",), 7),  # n_classes is 0
        (("n_classes",), -1),
        (("files",), []),
        (("files", "denoiser.onnx"), None),
        (("files", "denoiser.onnx", "size"), -1),
        (("files", "denoiser.onnx", "size"), 10**18),
        (("files", "denoiser.onnx", "sha256"), "00"),
        (("files", "denoiser.onnx", "sha256"), "G" * 64),
        (("graphs",), None),
        ((*DENOISER, "file"), ["denoiser.onnx"]),
        ((*DENOISER, "inputs"), {}),
        ((*DENOISER, "inputs", 0, "shape"), "batch"),
        ((*DENOISER, "inputs", 0, "shape"), [1.5]),
        ((*DENOISER, "inputs", 0, "shape"), [-1]),
        ((*ROUND, "tags"), {"stain": 1}),
        ((*ROUND, "colour", "foreground"), "violet"),
        ((*ROUND, "colour", "foreground", "mean"), [1, 2]),
        ((*ROUND, "colour", "foreground", "mean"), [1, 2, 256]),
        ((*ROUND, "colour", "foreground", "mean"), [1, 2, float("nan")]),
        ((*ROUND, "colour", "foreground", "mean"), ["1", "2", "3"]),
        ((*ROUND, "tiles"), -1),
        (("sampling", "steps"), 0),
        (("sampling", "solver"), "heun"),
        (("sampling", "sigma_min"), 0),
        (("sampling", "sigma_min"), 50),
        (("sampling", "sigma_max"), float("inf")),
        (("sampling", "rho"), None),
        (("sampling", "size_px"), 8),
        (("sampling", "batch"), 10**6),
        (("model",), "small"),
        (("tools", "python"), 3.11),
    ],
)
def test_a_value_of_a_wrong_type_or_range_is_named(text: str, path: tuple[Any, ...], value: object) -> None:
    error = refused(text, put(*path, value=value))
    assert "is malformed" in error.what
    # Noise levels are checked together.
    assert all(str(part) in error.what for part in path if part not in ("sigma_min", "rho"))


def test_sampling_changes_only_what_is_given(text: str) -> None:
    default = Manifest.from_json(text).sampling
    assert default.changed() == default
    changed = default.changed(steps=7, solver="euler", batch=1)
    assert (changed.steps, changed.solver, changed.batch) == (7, "euler", 1)
    assert changed.sigma_max == default.sigma_max


@pytest.mark.parametrize("change", [{"steps": 0}, {"batch": 0}, {"batch": 1025}, {"solver": "heun"}, {"solver": ""}])
def test_sampling_out_of_range_is_refused(text: str, change: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        Manifest.from_json(text).sampling.changed(**change)
    assert str(next(iter(change.values()))) in caught.value.what


GUIDANCE = {"text": 0.0, "colour": 0.5, "overall": 0.25, "sigma_low": 0.1, "sigma_high": 5.0}


def test_default_guidance_comes_back_and_none_leaves_no_key(text: str) -> None:
    assert "guidance" not in json.loads(text)
    assert Manifest.from_json(text).guidance == Guidance()
    for raw in (GUIDANCE, GUIDANCE | {"sigma_high": None}):
        manifest = Manifest.from_json(json.dumps(json.loads(text) | {"guidance": raw}))
        assert manifest.guidance == Guidance(0.0, 0.5, 0.25, 0.1, raw["sigma_high"] or math.inf)
        assert json.loads(manifest.to_json())["guidance"] == raw
        assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"text": 21}, "guidance is illegal: guidance text is 21"),
        ({"sigma_low": 6}, "guidance is illegal: guidance interval"),
        ({"text": None}, "guidance has no number in place of a strength"),
        ({"sigma_high": "5"}, "guidance sigma_high is '5', not a finite number"),
        ({"strength": 1}, "unknown key 'strength' in guidance"),
    ],
)
def test_illegal_guidance_is_refused(text: str, change: dict[str, Any], problem: str) -> None:
    assert problem in refused(text, put("guidance", value=GUIDANCE | change)).what

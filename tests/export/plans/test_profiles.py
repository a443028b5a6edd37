"""Profiles of the command line, targets, options and the toolchain: what is legal, and what each error says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from msdm_engine.bundle.manifest import GraphSpec, TensorSpec
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import CONDITIONER, DENOISER, TEXT_ENCODER
from msdm_engine.errors import BackendError, BundleError, RequestError
from msdm_export.plans.options import BuildOptions
from msdm_export.plans.profiles import input_shapes, parse_profiles
from msdm_export.plans.targets import Target, parse_target, targets_of
from msdm_export.plans.toolchain import open_toolchain


def test_each_combination_is_a_static_profile() -> None:
    profiles = parse_profiles(["128:1,8:1,3", "64x96:2"], 16)
    assert [str(profile) for profile in profiles] == [
        "128 px, batch 1, 1 branch(es)",
        "128 px, batch 1, 3 branch(es)",
        "128 px, batch 8, 1 branch(es)",
        "128 px, batch 8, 3 branch(es)",
        "64x96 px, batch 2, 1 branch(es)",
    ]


def test_each_graph_takes_its_own_dimensions_from_a_profile(micro: Path) -> None:
    graphs = Bundle.open(micro).manifest.graphs
    (profile,) = parse_profiles(["64x96:2:3"], 16)
    one = profile.dimensions(TEXT_ENCODER, graphs[TEXT_ENCODER], 16)
    assert one == {"samples": (1, 1, 1)}
    folded = profile.dimensions(CONDITIONER, graphs[CONDITIONER], 16)
    assert folded == {"samples": (6,) * 3, "rows": (4,) * 3, "columns": (6,) * 3}
    step = profile.dimensions(DENOISER, graphs[DENOISER], 16)
    assert step == {"batch": (2,) * 3, "branches": (3,) * 3, "rows": (4,) * 3, "columns": (6,) * 3}
    shapes = input_shapes(DENOISER, graphs[DENOISER], {name: low for name, (low, _, _) in step.items()})
    assert shapes["state"] == (2, 6, 64, 96)
    assert shapes["pooled"] == (3, 2, 8)


def test_a_graph_of_another_stride_sees_the_size_padded_to_its_own() -> None:
    (profile,) = parse_profiles(["48:2"], 16)
    for stride, rows in ((8, 6), (32, 2)):  # 48 px are six rows of 8 px, and one and a half of 32 px
        image = TensorSpec("image", "float32", ("batch", 3, f"{stride}*rows", f"{stride}*columns"))
        found = profile.dimensions("critic", GraphSpec("critic.onnx", (image,), ()), 16)
        assert found == {"batch": (2,) * 3, "rows": (rows,) * 3, "columns": (rows,) * 3}


@pytest.mark.parametrize(
    ("words", "dynamic", "said"),
    [
        ([], False, "no profile"),
        (["128"], False, "profile '128'"),
        (["128:"], False, "'' is no batch"),
        (["128:0"], False, "'0' is no batch"),
        (["128:1:9"], False, "'9' is no branches"),
        (["130:1"], False, "130 px"),
        (["64x64x64:1"], False, "3 sides"),
        (["64-128:1"], False, "a range of sizes"),
        (["128:1,1"], False, "names a value twice"),
        (["128:1", "128:4,1"], False, "profiles overlap"),
        (["128:1,8", "128:4,16"], True, "profiles overlap"),
    ],
)
def test_an_illegal_profile(words: list[str], dynamic: bool, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        parse_profiles(words, 16, dynamic=dynamic)
    assert caught.value.note


def test_profiles_of_other_sizes_share_no_shape() -> None:
    assert len(parse_profiles(["64-128:1,8", "144-256:1,8"], 16, dynamic=True)) == 2


def test_a_dimension_that_no_profile_gives() -> None:
    (profile,) = parse_profiles(["64:1"], 16)
    for dimension, said in (("depth", "dynamic dimension 'depth'"), ("x*rows", "has the dimension 'x\\*rows'")):
        spec = GraphSpec("critic.onnx", (TensorSpec("image", "float32", (dimension,)),), ())
        with pytest.raises(BundleError, match=said):
            profile.dimensions("critic", spec, 16)


def test_targets() -> None:
    assert parse_target("sm_120", "tensorrt-rtx") == Target(12, 0)
    assert parse_target("sm_90", "tensorrt") == Target(9, 0)
    assert str(Target(8, 9)) == "sm_89"
    with pytest.raises(RequestError, match="unknown target 'sm89'") as caught:
        parse_target("sm89", "tensorrt-rtx")
    assert "did you mean 'sm_89'" in str(caught.value)

    class ComputeCapability:
        SM89 = SM121 = SM130 = CURRENT = None

    class Newer:
        pass

    setattr(Newer, "ComputeCapability", ComputeCapability)  # noqa: B010 (mypy would want a stub)
    assert targets_of("tensorrt-rtx", Newer) == ("sm_89", "sm_121", "sm_130")


@pytest.mark.parametrize(("options", "said"), [({"level": 6}, "level 6"), ({"workspace_mib": 0}, "workspace of 0 MiB")])
def test_options_out_of_range(options: dict[str, int], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        BuildOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("backend", "module", "extra", "index"),
    [
        ("tensorrt", "tensorrt", "msdm[tensorrt]", "NVIDIA's package index"),
        ("tensorrt-rtx", "tensorrt_rtx", "msdm[rtx]", "Python package index"),
    ],
)
def test_an_absent_tensorrt_says_which_extra_and_which_index(
    backend: str, module: str, extra: str, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYGRAPHY_USE_TENSORRT_RTX", "1")  # restored, whatever open_toolchain sets
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match="cannot be imported") as caught:
        open_toolchain(backend)
    assert extra in str(caught.value)
    assert index in str(caught.value)
    with pytest.raises(RequestError, match="unknown backend 'tensorrt_rtx'"):
        open_toolchain("tensorrt_rtx")

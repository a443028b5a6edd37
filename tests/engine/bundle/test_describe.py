"""``--validate``: what would be made and what it costs, derived by hand, and nothing is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from msdm_engine import Bundle, Engine
from msdm_engine.bundle.describe import describe, megapixels, runs_per_pair, tensor_mib
from msdm_engine.cli import main
from msdm_engine.errors import BundleError, RequestError
from msdm_engine.output.png import png_bytes
from msdm_engine.requests.compose import compose
from msdm_engine.requests.request import GroupRequest, Invent, Layout, Masks, SetRequest
from msdm_engine.sampling.guidance import Guidance


def costs(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"cost ([0-9.e+-]+) megapixel-steps", text)]


def test_the_cost_is_pairs_in_whole_batches_times_steps_times_padded_megapixels(bundle_folder: Path) -> None:
    # 3 pairs fill 2 batches of 2; 100 x 30 px are padded to 112 x 32, the stride being 16.
    group = GroupRequest(Invent(), count=3, height_px=100, width_px=30, steps=10)
    text = describe(SetRequest((group,)), bundle_folder, 2)
    assert costs(text) == pytest.approx([4 * 10 * 112 * 32 / 1e6] * 2, rel=1e-3)  # printed with four digits
    assert "3 pair(s) of 100 x 30 px" in text and text.endswith("nothing was written")


def test_guided_rows_cost_their_branches(bundle_folder: Path) -> None:
    everywhere = Guidance(text=1, colour=1)
    steps = 10
    sigmas = Bundle.open(bundle_folder).manifest.sampling.changed(steps=steps).table()[:, 0]
    inside = Guidance(text=1, colour=1, sigma_low=float(sigmas[6]), sigma_high=float(sigmas[2]))  # rows 2 to 6
    for guidance, runs in ((Guidance(), 10), (everywhere, 30), (inside, 10 + 5 * 2)):
        group = GroupRequest(Invent(), count=1, height_px=64, width_px=64, steps=steps, guidance=guidance)
        text = describe(SetRequest((group,)), bundle_folder, 1)
        assert costs(text)[0] == pytest.approx(runs * 64 * 64 / 1e6, rel=1e-3)


def test_the_cost_is_what_the_denoiser_is_given(fake_engine: Engine, fake_backend: Any) -> None:
    group = GroupRequest(Invent(), count=5, height_px=40, width_px=64, steps=7, guidance=Guidance(text=1, sigma_low=1))
    (composed,) = compose(fake_engine.bundle.manifest, SetRequest((group,)), 2)
    list(fake_engine.sample(composed.pairs(), composed.sampling, composed.guidance))
    pixels = sum(
        inputs["guidance"].size * inputs["state"].shape[2] * inputs["state"].shape[3]
        for graph, inputs in fake_backend.calls
        if graph == "denoiser"
    )
    ((size, (_, computed)),) = composed.work.items()
    assert computed * runs_per_pair(composed) * megapixels(fake_engine.bundle, size) == pytest.approx(pixels / 1e6)


def test_memory_is_that_of_the_denoiser_s_tensors(fake_engine: Engine, fake_backend: Any) -> None:
    group = GroupRequest(Invent(), count=2, height_px=40, width_px=64, steps=1, guidance=Guidance(text=1))
    (composed,) = compose(fake_engine.bundle.manifest, SetRequest((group,)), 2)
    list(fake_engine.sample(composed.pairs(), composed.sampling, composed.guidance))
    (inputs,) = [inputs for graph, inputs in fake_backend.calls if graph == "denoiser"]
    given = sum(array.nbytes for array in inputs.values())
    outputs = 2 * inputs["state"].nbytes
    assert tensor_mib(fake_engine.bundle, (40, 64), composed) == pytest.approx((given + outputs) / 2**20)


def test_each_size_of_mask_has_its_line(bundle_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, shape in (("a", (16, 16)), ("b", (32, 48)), ("c", (16, 16))):
        (folder / f"{name}.png").write_bytes(png_bytes(np.ones(shape, np.uint16)))
    groups = (GroupRequest(Masks(folder), steps=1), GroupRequest(Layout("round"), count=2, steps=1))
    text = describe(SetRequest(groups), bundle_folder, 2)
    lines = text.splitlines()
    assert [line.split(",")[0] for line in lines[:3]] == [
        "group 0: 2 pair(s) of 16 x 16 px",
        "group 0: 1 pair(s) of 32 x 48 px",
        "group 1: 2 pair(s) of 64 x 64 px",
    ]
    # a and c share a batch of two, though b comes between them; b is alone in one.
    expected = [2 * 256 / 1e6, 2 * 32 * 48 / 1e6, 2 * 64 * 64 / 1e6]
    assert costs(text) == pytest.approx([*expected, sum(expected)], rel=1e-3)
    assert lines[-1].startswith("5 pairs, ")


def test_it_checks_what_generating_checks(bundle_folder: Path, tmp_path: Path) -> None:
    from msdm_engine.conditions.metadata import Metadata

    long = GroupRequest(Invent(), count=1, metadata=Metadata(description="violet " * 9))
    with pytest.raises(RequestError, match=r"group 1: metadata text of 9 tokens"):
        describe(SetRequest((GroupRequest(Invent(), count=1), long)), bundle_folder, None)


@pytest.mark.parametrize("dimension", ["planes", "x*rows", "9999999999*rows", "*", 2**31])
def test_dimensions_of_no_meaning_are_an_error(dimension: Any, edit_manifest: Callable[..., Path]) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["graphs"]["denoiser"]["inputs"][0]["shape"] = [dimension, dimension]

    folder = edit_manifest(change)
    with pytest.raises(BundleError, match="names the dimension"):
        describe(SetRequest((GroupRequest(Invent(), count=1),)), folder, None)


def test_validate_writes_nothing(bundle_folder: Path, tmp_path: Path) -> None:
    request = tmp_path / "request.yaml"
    request.write_text("version: 1\ngroups: [{morphology: {layout: round}, count: 2}]")
    before = sorted(tmp_path.rglob("*"))
    command = ["sample", str(request), "--bundle", str(bundle_folder), "--validate", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0 and "nothing was written" in done.output
    assert sorted(tmp_path.rglob("*")) == before
    request.write_text("version: 1\ngroups: [{morphology: {layout: round}, count: 2, preset: lilac-rund}]")
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2 and "did you mean 'lilac-round'" in done.output
    assert sorted(tmp_path.rglob("*")) == before

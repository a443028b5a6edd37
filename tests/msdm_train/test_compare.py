from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from msdm_engine.bundle.manifest import Sampling
from msdm_engine.conditions.colour import Colour, RegionColour, colour_from_image
from msdm_engine.engine import Engine
from msdm_engine.errors import BundleError, InputError, NumericsError, OutputError
from msdm_engine.output.png import png_text
from msdm_engine.pairs import Pair, PairRequest
from msdm_train.cli import main
from msdm_train.compare import GAP_PX, NOTICE, colour_gap, real_crops, requests_of, write_report
from msdm_train.data.pack import Pack
from msdm_train.data.reader import Field, Region

GREY = 128


def grey_pairs(requests: Sequence[PairRequest]) -> Iterator[Pair]:
    """A stand-in for the engine."""
    for request in requests:
        assert request.instances is not None
        yield Pair(request, np.full((request.height_px, request.width_px, 3), GREY, np.uint8), request.instances)


def rgb(data: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def test_crops_are_evenly_spaced_disjoint_windows(opened_pack: Pack) -> None:
    # A field of 64 px has 16 windows of 16 px; every second one from the second on.
    crops = real_crops(opened_pack, "val", 8, 16)
    assert [(c.field, c.y, c.x) for c in crops] == [("v", y, x) for y in (0, 16, 32, 48) for x in (16, 48)]
    image, instances = opened_pack.window("v", 16, 48, 32, 64)
    np.testing.assert_array_equal(crops[3].image, image)
    np.testing.assert_array_equal(crops[3].instances, instances)
    assert [(c.y, c.x) for c in real_crops(opened_pack, "val", 16, 16)] == [
        (y, x) for y in range(0, 64, 16) for x in range(0, 64, 16)
    ]
    assert {c.field for c in real_crops(opened_pack, "train", 4, 32)} == {"t1", "t2"}


def test_crops_stay_within_regions_and_in_their_split(
    draw_field: Callable[..., Field], pack_of: Callable[..., Path]
) -> None:
    regions = tuple(Region(y, x, y + 30, x + 40, {}) for y, x in ((0, 0), (30, 0)))
    pack = Pack(pack_of(draw_field("t", "train"), replace(draw_field("v", "val"), regions=regions)))
    assert [(c.y, c.x) for c in real_crops(pack, "val", 4, 20)] == [(0, 0), (0, 20), (30, 0), (30, 20)]
    with pytest.raises(InputError, match="split 'val' of drawn has 4 windows of 20 px, not 5"):
        real_crops(pack, "val", 5, 20)
    with pytest.raises(InputError, match="split 'test' of drawn has 0 windows"):
        real_crops(pack, "test", 1, 20)


def test_a_request_has_mask_colour_and_description_of_its_crop(opened_pack: Pack) -> None:
    crops = real_crops(opened_pack, "val", 3, 32)
    requests = requests_of(crops, seed=5)
    for index, (crop, request) in enumerate(zip(crops, requests, strict=True)):
        assert (request.index, request.seed, request.height_px, request.width_px) == (index, 5, 32, 32)
        assert request.instances is crop.instances
        assert request.colour == colour_from_image(crop.image, crop.instances)
        assert request.metadata.description == "violet nuclei; small nuclei"


def test_the_report(opened_pack: Pack, tmp_path: Path) -> None:
    crops, out = real_crops(opened_pack, "val", 3, 32), tmp_path / "deep" / "report"
    write_report(out, crops, grey_pairs, seed=0, facts={"bundle": "<tiny>"})
    assert sorted(p.name for p in out.iterdir()) == [".gitignore", "compare.html", "compare.png"]
    assert (out / ".gitignore").read_text() == "*\n"
    assert [p.name for p in out.parent.iterdir()] == ["report"]
    sheet = (out / "compare.png").read_bytes()
    assert png_text(sheet)["Comment"] == NOTICE
    picture = rgb(sheet)
    assert picture.shape == (3 * 32 + 2 * GAP_PX, 4 * 32 + 3 * GAP_PX, 3)
    step = 32 + GAP_PX
    for i, crop in enumerate(crops):
        row = picture[i * step : i * step + 32]
        np.testing.assert_array_equal(row[:, :32], crop.image)
        assert (row[:, 2 * step : 2 * step + 32] == GREY).all()
        for shown, plain in ((1, crop.image), (3, np.full_like(crop.image, GREY))):
            changed = (row[:, shown * step : shown * step + 32] != plain).any(2)
            assert changed.any()
            assert (crop.instances[changed] > 0).all()  # outlines lie inside the nuclei
    page = (out / "compare.html").read_text()
    assert NOTICE in page
    assert "&lt;tiny&gt;" in page
    assert "violet nuclei; small nuclei" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # nothing is loaded from elsewhere
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(embedded) == 3
    np.testing.assert_array_equal(rgb(base64.b64decode(embedded[1])), picture[step : step + 32])


def test_colour_gap() -> None:
    red, blue = RegionColour((10, 0, 0), (1, 1, 1)), RegionColour((10, 3, 6), (9, 9, 9))
    # sqrt((0 + 9 + 36) / 3)
    assert colour_gap(Colour(red, red), Colour(blue)) == {"foreground": pytest.approx(15**0.5)}


def test_an_error_writes_nothing(opened_pack: Pack, tmp_path: Path) -> None:
    crops = real_crops(opened_pack, "val", 2, 32)

    def breaks(requests: Sequence[PairRequest]) -> Iterator[Pair]:
        yield next(grey_pairs(requests))
        raise NumericsError("pair 1 is not finite")

    with pytest.raises(NumericsError):
        write_report(tmp_path / "report", crops, breaks, seed=0, facts={})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path, tmp_path / "file"):
        with pytest.raises(OutputError, match="exists and is not empty"):
            write_report(out, crops, grey_pairs, seed=0, facts={})
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(tmp_path / "file" / "report", crops, grey_pairs, seed=0, facts={})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


class SmallEngine:
    """What the command needs of the engine."""

    class bundle:
        sha256 = "0" * 64

        class manifest:
            name = "small"
            sampling = Sampling("euler", 4, 0.01, 40.0, 7.0, 32, 2)

    asked: Sampling | None = None

    def __enter__(self) -> SmallEngine:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def sample(self, requests: Sequence[PairRequest], sampling: Sampling) -> Iterator[Pair]:
        SmallEngine.asked = sampling
        return grey_pairs(requests)


def test_the_command(small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "report"
    command = ["compare", str(tmp_path / "bundle"), "--data", str(small_pack), "--out", str(out)]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == InputError.exit_code  # before the bundle is opened: 12 crops of 128 px
    assert "0 windows of 128 px" in refused.output
    command += ["--count", "4", "--size", "32"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == BundleError.exit_code
    assert not out.exists()
    monkeypatch.setattr(Engine, "open", lambda *_, **__: SmallEngine())
    done = CliRunner().invoke(main, [*command, "--steps", "7"], catch_exceptions=False)
    assert done.exit_code == 0
    assert NOTICE in done.output
    assert SmallEngine.asked is not None
    assert (SmallEngine.asked.steps, SmallEngine.asked.solver) == (7, "euler")
    assert "euler, 7 steps, seed 0" in (out / "compare.html").read_text()
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == OutputError.exit_code

"""The commands as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from msdm_engine.cli import main
from msdm_engine.layouts import LAYOUTS, LayoutRequest, draw_layout
from msdm_engine.layouts.plan import size_of
from msdm_engine.layouts.statistics import nuclei_of, statistics_of
from msdm_engine.output.png import write_atomically


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def done(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def read(path: Path) -> np.ndarray:
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert labels is not None
    assert labels.dtype == np.uint16
    return labels


def record_of(folder: Path, name: str = "layout.json") -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / name).read_text())
    return record


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn maps with their record and sheet."""
    out = tmp_path_factory.mktemp("given") / "maps"
    done("layout", "--layout", "columnar", "--size", "128x160", "--count", 3, "--seed", 5, "--out", out)
    return out


def test_maps_record_and_sheet(given: Path) -> None:
    assert sorted(contents(given)) == ["000000.png", "000001.png", "000002.png", "contact_sheet.png", "layout.json"]
    record = record_of(given)
    assert record["format"] == "msdm-layouts/1"
    assert record["outlines"]["licence"].startswith("CC0")
    for index, entry in enumerate(record["maps"]):
        labels = read(given / entry["file"])
        request = LayoutRequest.from_options(**entry["request"])
        assert request == LayoutRequest("columnar", 128, 160, 5, index)
        assert np.array_equal(labels, draw_layout(request))
        assert entry["statistics"]["area_median_px"] == statistics_of(labels).area_median_px


@pytest.mark.parametrize(
    "options",
    [["--layout", "gland"], ["--mix", "columnar:0.6,round:0.4"], ["--layout", "round", "--nuclei", 9]],
    ids=["kind", "mixture", "nuclei"],
)
def test_same_seed_same_bytes(tmp_path: Path, options: list[object]) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        done("layout", *options, "--size", 160, "--count", 2, "--seed", seed, "--out", tmp_path / name)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert all(a[name] != c[name] for name in a)


def test_options_reach_the_request(tmp_path: Path) -> None:
    options = {"area": 200, "spread": 0.3, "aspect": 2.5, "crowding": 0.7, "rows": 2, "stroma": 0.5, "orientation": 30}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    out = tmp_path / "out"
    done("layout", "--layout", "columnar", *flags, "--density", 500, "--count", 1, "--size", 200, "--out", out)
    request = record_of(out)["maps"][0]["request"]
    asked = ("area_px", "area_spread", "aspect_ratio", "crowding", "rows", "stroma", "orientation_deg")
    assert [request[name] for name in asked] == list(options.values())
    # 500 a million pixels on 0.04 million.
    assert read(out / "000000.png").max() == 20


def test_a_mixture_says_which_nuclei_are_which(tmp_path: Path) -> None:
    out = tmp_path / "out"
    mix = ("--mix", "spindle:0.3,columnar:0.7", "--rows", 1, "--nuclei", 41)
    done("layout", *mix, "--count", 2, "--out", out)
    for entry in record_of(out)["maps"]:
        spindle, columnar = entry["parts"]
        assert (spindle["kind"], columnar["kind"]) == ("spindle", "columnar")
        assert spindle["share"] == pytest.approx(0.3, abs=1e-4)
        # 41 * 0.3 = 12.3 and 41 * 0.7 = 28.7: the larger remainder gets the nucleus that is left.
        assert (spindle["labels"], columnar["labels"]) == ([1, 12], [13, 41])
        labels = read(out / entry["file"])
        assert labels.max() == 41
        nuclei = nuclei_of(labels)
        elongation = [np.median(nuclei.aspect_ratio[:12]), np.median(nuclei.aspect_ratio[12:])]
        # Defaults: 3.2 against 2.2, and smaller ones in the stroma.
        assert elongation[0] > elongation[1]


def test_drawn_regions(tmp_path: Path) -> None:
    regions = np.zeros((200, 240), np.uint8)
    regions[:, 80:160], regions[:, 160:] = 3, 1
    cv2.imwrite(str(tmp_path / "drawn.png"), regions)
    flags = ("--regions", tmp_path / "drawn.png", "--region-kinds", "1=round,3=spindle", "--count", 1)
    done("layout", *flags, "--out", tmp_path / "out")
    labels = read(tmp_path / "out" / "000000.png")
    assert labels.shape == regions.shape
    assert not labels[:, :50].any()
    first, second = record_of(tmp_path / "out")["maps"][0]["parts"]
    x = nuclei_of(labels).centroid[:, 0]
    assert (first["kind"], second["kind"]) == ("round", "spindle")
    # At least 80 % of a nucleus lies in its region, so its centre does.
    assert (x[: first["nuclei"]] > 160).all()
    assert ((x[first["nuclei"] :] > 80) & (x[first["nuclei"] :] < 160)).all()


def test_like_stands_beside_the_given(tmp_path: Path, given: Path) -> None:
    out = tmp_path / "out"
    said = done("layout", "--like", given, "--count", 3, "--seed", 2, "--out", out)
    record = record_of(out)
    counts = [entry["statistics"]["count"] for entry in record_of(given)["maps"]]
    assert sorted(entry["statistics"]["count"] for entry in record["maps"]) == sorted(counts)
    assert [entry["count"] for entry in record["given"]] == counts
    assert record["like"]["masks"] == 3
    assert record["like"]["fitted"]["kind"] in LAYOUTS
    compared = record["compared"]["count"]
    assert compared["given"] == compared["drawn"] == np.percentile(counts, [10, 50, 90]).tolist()
    assert "given" in said
    assert "area_median_px" in said
    done("layout", "--like", given, "--layout", "gland", "--size", "96x64", "--count", 1, "--out", tmp_path / "gland")
    assert record_of(tmp_path / "gland")["maps"][0]["request"]["kind"] == "gland"
    assert read(tmp_path / "gland" / "000000.png").shape == (96, 64)


def test_like_tells_what_it_cannot_follow(tmp_path: Path) -> None:
    cells = np.zeros((100, 100), np.uint16)
    for label, (y, x) in enumerate(np.ndindex(5, 5), start=1):
        cells[20 * y + 1 : 20 * y + 19, 20 * x + 1 : 20 * x + 19] = label
    (tmp_path / "full").mkdir()
    for name, labels in (("a.npy", cells), ("b.npy", np.zeros_like(cells))):
        np.save(tmp_path / "full" / name, labels)
    said = done("layout", "--like", tmp_path / "full", "--count", 1, "--out", tmp_path / "out")
    assert "1 of 1 given masks hold more nuclei than this layout finds room for" in said
    assert "1 given masks have no nuclei" in said


OPERATIONS = {"--grow": 2, "--shrink": 1.5, "--elongate": 1.4, "--add": 3, "--remove": 0.5, "--swap": 0.5}


@pytest.mark.parametrize("flag", sorted(OPERATIONS))
def test_edit(tmp_path: Path, given: Path, flag: str) -> None:
    for name in "ab":
        done("edit", given, flag, OPERATIONS[flag], "--seed", 7, "--out", tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    record = record_of(tmp_path / "a", "edit.json")
    assert record["edit"]["operation"] == flag[2:]
    assert [entry["file"] for entry in record["maps"]] == ["000000.png", "000001.png", "000002.png"]
    for entry in record["maps"]:
        before, after = (read(folder / entry["file"]) for folder in (given, tmp_path / "a"))
        n = int(before.max())
        assert after.max() == {"--add": n + 3, "--remove": n - round(0.5 * n)}.get(flag, n)
        assert entry["before"]["count"] == n
        assert entry["after"]["count"] == after.max()
        sign = {"--grow": 1, "--shrink": -1}.get(flag, 0)
        if sign:
            assert sign * (entry["after"]["foreground"] - entry["before"]["foreground"]) > 0


def test_vanish(tmp_path: Path, given: Path) -> None:
    assert "0 after" in done("edit", given, "--shrink", 64, "--vanish", "--out", tmp_path / "gone")
    assert "0 after" not in done("edit", given, "--shrink", 64, "--out", tmp_path / "kept")


def test_edit_reads_other_formats_and_keeps_names(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    labels = draw_layout(LayoutRequest("round", 64, 64, 1))
    np.save(folder / "tile_b.npy", labels.astype(np.int64) * 7)
    cv2.imwrite(str(folder / "tile_a.tif"), labels)
    done("edit", folder, "--grow", 1, "--out", tmp_path / "out")
    a, b = (read(tmp_path / "out" / f"tile_{name}.png") for name in "ab")
    assert np.array_equal(a, b)
    cv2.imwrite(str(folder / "tile_a.png"), labels)
    refused = run("edit", folder, "--grow", 1, "--out", tmp_path / "twice")
    assert refused.exit_code == 4
    assert "several files named tile_a" in refused.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["layout"], 2, "what to draw is not clear"),
        (["layout", "--layout", "colunar"], 2, "did you mean 'columnar'"),
        (["layout", "--layout", "round", "--mix", "round:1"], 2, "--layout and --mix are given"),
        (["layout", "--layout", "round", "--size", "300y"], 2, "size is '300y'"),
        (["layout", "--layout", "round", "--size", "9000"], 2, "height_px is 9000"),
        (["layout", "--layout", "round", "--rows", "2"], 2, "layout 'round' has no option rows"),
        (["layout", "--layout", "round", "--nuclei", "9", "--density", "9"], 2, "both given"),
        (["layout", "--layout", "round", "--count", "0"], 2, "count is 0"),
        (["layout", "--layout", "round", "--seed", "-1"], 2, "seed is -1"),
        (["layout", "--mix", "columnar:0.6,round"], 2, "the mixture holds 'round'"),
        (["layout", "--mix", "columnar:0.6,round:0.3"], 2, "shares columnar:0.6, round:0.3 are not legal"),
        (
            ["layout", "--mix", "spindle:0.6,round:0.4", "--rows", "2"],
            2,
            "no layout of the mixture has the option rows",
        ),
        (["layout", "--mix", "spindle:0.6,round:0.4", "--nuclei", "1"], 2, "1 nuclei cannot be shared out"),
        (["layout", "--regions", "GIVEN/000000.png"], 2, "--regions and --region-kinds go together"),
        (["layout", "--regions", "x.png", "--region-kinds", "1=round", "--size", "64"], 2, "--size and --regions"),
        (["layout", "--regions", "GIVEN/000000.png", "--region-kinds", "round"], 2, "region kinds hold 'round'"),
        (["layout", "--regions", "GIVEN/000000.png", "--region-kinds", "99=round"], 2, "the drawn regions have no"),
        (["layout", "--regions", "absent.png", "--region-kinds", "1=round"], 4, "absent.png cannot be read"),
        (["layout", "--like", "GIVEN", "--area", "300"], 2, "--area and --like are given"),
        (["layout", "--like", "absent"], 4, "mask folder absent cannot be read"),
        (["layout", "--like", "GIVEN", "--layout", "spindel"], 2, "unknown layout 'spindel'"),
        (["edit", "GIVEN"], 2, "0 operations are given"),
        (["edit", "GIVEN", "--grow", "1", "--add", "2"], 2, "2 operations are given"),
        (["edit", "GIVEN", "--grow", "1", "--vanish"], 2, "--vanish goes with --shrink"),
        (["edit", "GIVEN", "--grow", "0"], 2, "grow: px is 0"),
        (["edit", "GIVEN", "--add", "300"], 2, "mask 000000.png: only"),
        (["edit", "GIVEN", "--remove", "0.5", "--seed", "-1"], 2, "seed is -1"),
        (["edit", "absent", "--grow", "1"], 4, "mask folder absent cannot be read"),
    ],
)
def test_errors_write_nothing(tmp_path: Path, given: Path, arguments: list[str], code: int, message: str) -> None:
    arguments = [argument.replace("GIVEN", str(given)) for argument in arguments]
    result = run(*arguments, "--out", tmp_path / "parent" / "out")
    assert result.exit_code == code
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_full_output_folder_is_refused(tmp_path: Path) -> None:
    write_atomically(tmp_path / "mine.txt", b"something")
    result = run("layout", "--layout", "round", "--out", tmp_path)
    assert result.exit_code == 5
    assert "is not empty" in result.output
    assert list(contents(tmp_path)) == ["mine.txt"]


def test_sizes() -> None:
    assert (size_of("300"), size_of("200x320"), size_of("64X96")) == ((300, 300), (200, 320), (64, 96))

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from msdm_engine.errors import InputError
from msdm_engine.gallery.manifest import MAX_LINE_BYTES, check_files, read_header, records


def lines_of(folder: Path) -> list[str]:
    return (folder / "manifest.jsonl").read_text().splitlines()


def test_a_record_is_read_whole(write_set: Any) -> None:
    changes = {"seed": 2**64 - 1, "agreement": {"PQ": 0.5}, "guidance": 2, "colour": {"foreground": None}}
    (record,) = records(write_set(([4], changes)))
    assert (record.line, record.index, record.seed, record.morphology) == (1, 0, 2**64 - 1, "layout round")
    assert record.metadata == {"description": "violet"}, "empty texts are left out"
    assert record.colour.foreground is None
    assert record.colour.background is None
    assert record.agreement == {"PQ": 0.5}
    assert record.other == {"guidance": 2}
    assert str(record.image) == "images/000000.png"


def test_accepted_or_not_is_a_number(write_set: Any) -> None:
    agreement = {"dice": 0.75, "accepted": False}
    (record,) = records(write_set(([4], {"agreement": agreement})))
    assert record.agreement == {"dice": 0.75, "accepted": 0.0}


def test_an_agreement_of_one_number_has_no_name(write_set: Any) -> None:
    (record,) = records(write_set(([4], {"agreement": 1})))
    assert record.agreement == {"": 1.0}


def test_what_the_engine_writes_is_read(tmp_path: Path) -> None:
    # The writer itself, so that the two cannot drift apart.
    import numpy as np

    from msdm_engine.conditions.colour import Colour, RegionColour
    from msdm_engine.conditions.metadata import Metadata
    from msdm_engine.output.pair_set import PairSet
    from msdm_engine.pairs import Pair, PairRequest

    colour = Colour(foreground=RegionColour((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)))
    request = PairRequest(3, 9, 16, 24, colour=colour, metadata=Metadata(assay="HE"), morphology="invented")
    header = {"bundle": {"name": "b", "sha256": "0"}, "data": {"licence": "CC0-1.0"}, "provenance": {}, "pairs": 4}
    with PairSet(tmp_path / "set", header) as pairs:
        pairs.add(Pair(request, np.zeros((16, 24, 3), np.uint8), np.zeros((16, 24), np.uint16)))
    (record,) = records(tmp_path / "set")
    assert (record.index, record.seed, record.height_px, record.width_px) == (3, 9, 16, 24)
    assert record.colour == colour
    assert record.metadata == {"assay": "HE"}
    assert read_header(tmp_path / "set")["bundle"]["name"] == "b"
    check_files(tmp_path / "set", record)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"index": -1}, "index is '-1'"),
        ({"index": 2**53}, "index is"),
        ({"index": True}, "index is 'True'"),
        ({"seed": 0.5}, "seed is '0.5'"),
        ({"height_px": "32"}, "height_px is '32'"),
        ({"morphology": 3}, "morphology is int"),
        ({"metadata": []}, "metadata is list"),
        ({"metadata": {"assay": 1}}, "assay is int"),
        ({"colour": {"foreground": []}}, "colour foreground is list"),
        ({"colour": {"foreground": {"mean": [1, 2, 3]}}}, "it lacks 'std'"),
        ({"colour": {"foreground": {"mean": [1, 2], "std": [0, 0, 0]}}}, "not three numbers"),
        ({"colour": {"foreground": {"mean": [300, 0, 0], "std": [0, 0, 0]}}}, "300"),
        ({"colour": {"foreground": {"mean": [10**400, 0, 0], "std": [0, 0, 0]}}}, "not three numbers"),
        ({"agreement": "good"}, "agreement is good"),
        ({"agreement": 1e9}, "agreement is 1000000000.0"),
        ({"image": "../images/000000.png"}, "not a path below"),
        ({"image": "/images/000000.png"}, "not a path below"),
        ({"image": "C:\\images\\000000.png"}, "not a path below"),
        ({"mask": ""}, "not a path below"),
        ({"mask": "\ud800.png"}, "surrogates not allowed"),
    ],
)
def test_a_damaged_value_is_named_with_its_line(write_set: Any, changes: dict[str, Any], said: str) -> None:
    folder = write_set(([4], {}), ([4], {}))
    good, second = lines_of(folder)
    (folder / "manifest.jsonl").write_text(f"{good}\n{json.dumps(json.loads(second) | changes)}\n")
    with pytest.raises(InputError, match=r"line 2 of .*manifest\.jsonl is damaged") as caught:
        list(records(folder))
    assert said in caught.value.what


@pytest.mark.parametrize(
    "line",
    [
        '{"index": 0, "se',  # cut short by a kill
        "[]",
        "",
        '{"index": NaN}',
        "[" * 100_000,  # nested beyond the parser
        '{"index": ' + "9" * 5000 + "}",
        "\x00\ufffd",
        "x" * (MAX_LINE_BYTES + 1),
    ],
    ids=["cut", "list", "blank", "nan", "nested", "digits", "binary", "long"],
)
def test_a_line_that_is_no_record_is_named(write_set: Any, line: str) -> None:
    folder = write_set(([4], {}))
    with (folder / "manifest.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match="line 2 of"):
        list(records(folder))


def test_a_folder_that_is_no_set(tmp_path: Path) -> None:
    for read in (read_header, lambda folder: list(records(folder))):
        with pytest.raises(InputError, match="is not a generated set") as caught:
            read(tmp_path)
        assert "msdm-engine sample" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is damaged"),
        ("[]", "bundle.name"),
        ('{"bundle": {"name": "b"}}', "bundle.sha256"),
        ('{"bundle": {"name": "b", "sha256": "0"}, "data": {}}', "data.licence"),
    ],
)
def test_a_damaged_header_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "set.json").write_text(text)
    with pytest.raises(InputError, match=r"set\.json is damaged") as caught:
        read_header(tmp_path)
    assert said in caught.value.what


def test_missing_files_and_links_out_of_the_set_are_named(write_set: Any, tmp_path: Path) -> None:
    folder = write_set(([4], {}))
    (record,) = records(folder)
    check_files(folder, record)
    mask = folder / "masks/000000.png"
    (tmp_path / "elsewhere.png").write_bytes(mask.read_bytes())
    mask.unlink()
    with pytest.raises(InputError, match=r"masks.000000\.png is missing"):
        check_files(folder, record)
    mask.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(InputError, match="link that leaves the set"):
        check_files(folder, record)

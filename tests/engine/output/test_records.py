"""Reading a generated set back: records, and what ``msdm-engine verify`` finds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from msdm_engine.cli import main
from msdm_engine.errors import OutputError
from msdm_engine.output.records import encode_record, file_problem, read_header, read_records, verify_set, whole_pairs

PAIRS = 3


def record(index: int) -> dict[str, Any]:
    made: dict[str, Any] = {"index": index, "seed": 1}
    for kind in ("image", "mask"):
        made[kind] = f"{kind}s/{index:06d}.png"
        made[f"{kind}_sha256"] = hashlib.sha256(content(kind, index)).hexdigest()
    return made


def content(kind: str, index: int) -> bytes:
    return f"{kind} {index}".encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole set of three pairs, whose pictures are no pictures: only hashes matter here."""
    out = tmp_path / "set"
    for kind in ("image", "mask"):
        (out / f"{kind}s").mkdir(parents=True)
        for index in range(PAIRS):
            (out / f"{kind}s" / f"{index:06d}.png").write_bytes(content(kind, index))
    (out / "set.json").write_text(json.dumps({"pairs": PAIRS}))
    (out / "manifest.jsonl").write_bytes(b"".join(encode_record(record(index)) for index in range(PAIRS)))
    (out / "contact_sheet.png").write_bytes(b"sheet")
    return out


def test_a_whole_set(folder: Path) -> None:
    found = verify_set(folder)
    assert (found.expected, found.whole, found.problems) == (PAIRS, PAIRS, ())
    assert list(read_records(folder)) == [record(index) for index in range(PAIRS)]
    assert whole_pairs(folder) == {index: encode_record(record(index)) for index in range(PAIRS)}
    done = CliRunner().invoke(main, ["verify", str(folder)])
    assert done.exit_code == 0 and "is whole: 3 pairs" in done.output


def test_other_files_beside_a_set_are_nobody_s_business(folder: Path) -> None:
    (folder / "gallery.html").write_text("made by another command")
    assert verify_set(folder).problems == ()


def cut(path: Path, count: int = 1) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def lines(folder: Path, *order: int, extra: bytes = b"") -> None:
    (folder / "manifest.jsonl").write_bytes(b"".join(encode_record(record(index)) for index in order) + extra)


DAMAGE: list[tuple[Callable[[Path], Any], int, list[str]]] = [
    (lambda out: (out / "images/000001.png").unlink(), 2, ["images/000001.png is missing"]),
    (lambda out: (out / "masks/000000.png").unlink(), 2, ["masks/000000.png is missing"]),
    (lambda out: cut(out / "images/000002.png"), 2, ["images/000002.png is not as it was written"]),
    (lambda out: (out / "masks/000002.png").write_bytes(b""), 2, ["masks/000002.png is not as it was written"]),
    (lambda out: (out / "images/000003.png").write_bytes(b"x"), 3, ["images/000003.png is not listed"]),
    (lambda out: (out / "masks/notes.txt").write_bytes(b"x"), 3, ["masks/notes.txt is not listed"]),
    (lambda out: (out / "images/.000001.png.tmp").write_bytes(b"x"), 3, ["images/.000001.png.tmp is not listed"]),
    (lambda out: (out / ".manifest.jsonl.tmp").write_bytes(b"x"), 3, [".manifest.jsonl.tmp is left over"]),
    (lambda out: (out / "contact_sheet.png").unlink(), 3, ["contact_sheet.png is missing"]),
    (lambda out: lines(out, 0, 2, 1), 3, ["manifest.jsonl is not in the order of the pairs, each once"]),
    (lambda out: lines(out, 0, 1, 1, 2), 3, ["manifest.jsonl is not in the order of the pairs, each once"]),
    (lambda out: lines(out, 0, 1, 2, extra=b"{}\n"), 3, ["line 4 of manifest.jsonl is no pair of this set"]),
    (lambda out: lines(out, 0, 1, 2, 3), 3, ["line 4 of manifest.jsonl is no pair of this set"]),
    (
        lambda out: lines(out, 0, 2),
        2,
        [
            "1 of 3 pairs are not there yet, first 1",
            "images/000001.png is not listed",
            "masks/000001.png is not listed",
        ],
    ),
    (
        lambda out: cut(out / "manifest.jsonl", 20),
        2,
        [
            "line 3 of manifest.jsonl is no pair of this set",
            "1 of 3 pairs are not there yet, first 2",
            "images/000002.png is not listed",
            "masks/000002.png is not listed",
        ],
    ),
]


@pytest.mark.parametrize(("damage", "whole", "problems"), DAMAGE)
def test_what_verify_finds(damage: Callable[[Path], Any], whole: int, problems: list[str], folder: Path) -> None:
    damage(folder)
    found = verify_set(folder)
    assert (found.whole, list(found.problems)) == (whole, problems)
    done = CliRunner().invoke(main, ["verify", str(folder)])
    assert done.exit_code == 5
    assert all(problem in done.output for problem in problems)
    assert "--resume" in done.output


def test_a_set_without_manifest_or_folders_has_no_pairs(folder: Path) -> None:
    for path in [*folder.glob("*s/*.png"), folder / "manifest.jsonl"]:
        path.unlink()
    for name in ("images", "masks"):
        (folder / name).rmdir()
    assert verify_set(folder).problems == ("3 of 3 pairs are not there yet, first 0",)


def test_a_set_that_claims_any_number_of_pairs_takes_no_time(folder: Path) -> None:
    (folder / "set.json").write_text(json.dumps({"pairs": 10**30}))
    assert verify_set(folder).problems == (f"{10**30 - 3} of {10**30} pairs are not there yet, first 3",)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b"{" + b"[" * 100_000 + b"\n",
        b'{"index": ' + b"9" * 5000 + b"}\n",
        b"\xff\xfe\n",
        encode_record(record(0))[:-1],  # cut short
        encode_record(record(0)).replace(b"000000", b"000001"),
        *(
            encode_record(record(0) | dict(changes))
            for changes in (
                {"index": True},
                {"index": -1},
                {"index": 0.0},
                {"index": "0"},
                {"index": None},
                {"image": "../../etc/passwd"},
                {"image": "images/../images/000000.png"},
                {"mask": None},
                {"image_sha256": 1},
            )
        ),
        encode_record({"index": -1, **{k: v for k, v in record(-1).items() if k != "index"}}),
    ],
)
def test_a_line_that_is_no_record(line: bytes, folder: Path) -> None:
    (folder / "manifest.jsonl").write_bytes(line + encode_record(record(1)) if line.endswith(b"\n") else line)
    assert next(read_records(folder)) is None


def test_a_line_without_end_is_read_in_pieces(folder: Path) -> None:
    (folder / "manifest.jsonl").write_bytes(b" " * (3 << 20) + b"\n" + encode_record(record(1)))
    assert [found for found in read_records(folder) if found] == [record(1)]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "is not a generated set"),
        (b"", "is not a generated set"),
        (b"\xff", "is not a generated set"),
        (b"[" * 100_000, "is not a generated set"),
        (b"[]", "is not a JSON object"),
        (b"{}", "does not say how many pairs"),
        (b'{"pairs": true}', "does not say how many pairs"),
        (b'{"pairs": -1}', "does not say how many pairs"),
        (b'{"pairs": 1.5}', "does not say how many pairs"),
    ],
)
def test_a_folder_that_is_no_set(header: bytes | None, message: str, folder: Path) -> None:
    (folder / "set.json").unlink()
    if header is not None:
        (folder / "set.json").write_bytes(header)
    with pytest.raises(OutputError, match=message):
        verify_set(folder)
    done = CliRunner().invoke(main, ["verify", str(folder)])
    assert done.exit_code == 5


def test_read_header_of_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="msdm-engine sample --out"):
        read_header(tmp_path / "nowhere")


def test_files_that_cannot_be_read_are_told_from_missing_ones(folder: Path, tmp_path: Path) -> None:
    assert file_problem(tmp_path / "nothing", "0") == "is missing"
    assert (file_problem(folder, "0") or "").startswith("cannot be read")
    (folder / "manifest.jsonl").unlink()
    (folder / "manifest.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"manifest.jsonl cannot be read"):
        verify_set(folder)

"""Sets on disk: whole pairs only, and a resumed set has the bytes of one that was never interrupted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msdm_engine.conditions.colour import Colour, RegionColour
from msdm_engine.errors import NumericsError, OutputError
from msdm_engine.output.pair_set import NOTICE, PairSet
from msdm_engine.output.png import png_text
from msdm_engine.output.records import verify_set
from msdm_engine.pairs import Pair, PairRequest

PAIRS = 5
HEADER: dict[str, Any] = {
    "notice": NOTICE,
    "pairs": PAIRS,
    "bundle": {"name": "drawn", "sha256": "0" * 64},
    "engine": {"backend": "none", "threads": "1"},
    "request": {"version": 1, "seed": 3, "groups": [{"count": PAIRS, "steps": None}]},
    "groups": [{"first": 0, "sampling": {"batch": 2, "sigma_max": 40.0}, "colour": (1.0, 2.0)}],
    "provenance": {"Software": "msdm", "Comment": NOTICE, "Data licence": "CC0-1.0"},
}


def pair(index: int) -> Pair:
    """A picture of noise, and a mask with index + 1 nuclei."""
    instances = np.zeros((24, 32), np.uint16)
    for label in range(index + 1):
        instances[2 * label : 2 * label + 2, 4:20] = label + 1
    image = np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    colour = Colour(RegionColour((1.5, 2.0, 3.0), (1.0, 1.0, 1.0)))
    return Pair(PairRequest(index, 3, 24, 32, instances, colour, morphology="drawn"), image, instances)


def make(folder: Path, *, resume: bool = False, order: Any = None, header: dict[str, Any] | None = None) -> PairSet:
    with PairSet(folder, header or HEADER, resume=resume) as pairs:
        for index in range(PAIRS) if order is None else order:
            if index not in pairs.done:
                pairs.add(pair(index))
    return pairs


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The set, made without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "set"
    assert make(folder).written == PAIRS
    return tree(folder)


@pytest.fixture
def folder(tmp_path: Path, whole: dict[str, bytes]) -> Path:
    """A copy of the whole set, to be damaged."""
    out = tmp_path / "set"
    for name, data in whole.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    return out


def test_a_set_holds_what_was_handed_in(folder: Path, whole: dict[str, bytes]) -> None:
    assert verify_set(folder).problems == ()
    names = {f"{kind}/{index:06d}.png" for kind in ("images", "masks") for index in range(PAIRS)}
    assert set(whole) == names | {"set.json", "manifest.jsonl", "contact_sheet.png"}
    records = [json.loads(line) for line in whole["manifest.jsonl"].splitlines()]
    for index, record in enumerate(records):
        made = pair(index)
        image = cv2.imread(str(folder / record["image"]), cv2.IMREAD_COLOR)
        assert image is not None
        assert np.array_equal(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), made.image)
        mask = cv2.imread(str(folder / record["mask"]), cv2.IMREAD_UNCHANGED)
        assert mask is not None and mask.dtype == np.uint16
        assert np.array_equal(mask, made.instances)
        assert (record["index"], record["seed"], record["nuclei"]) == (index, 3, index + 1)
        assert (record["height_px"], record["width_px"], record["morphology"]) == (24, 32, "drawn")
        assert record["colour"]["foreground"]["mean"] == [1.5, 2.0, 3.0] and record["colour"]["background"] is None


def test_every_picture_says_where_it_comes_from(whole: dict[str, bytes]) -> None:
    pictures = {name: png_text(data) for name, data in whole.items() if name.endswith(".png")}
    sheet = pictures.pop("contact_sheet.png")
    assert sheet == HEADER["provenance"]
    for name, text in pictures.items():
        assert text == {**HEADER["provenance"], "Seed": "3", "Pair": str(int(name[-10:-4]))}
        assert "synthetic" in text["Comment"] and "clinical" in text["Comment"]


def test_the_order_of_handing_in_does_not_matter(tmp_path: Path, whole: dict[str, bytes]) -> None:
    make(tmp_path / "set", order=[3, 0, 4, 2, 1])
    assert tree(tmp_path / "set") == whole


def test_a_folder_with_anything_in_it_is_left_alone(folder: Path, tmp_path: Path) -> None:
    before = tree(folder)
    with pytest.raises(OutputError, match="exists and is not empty"):
        make(folder)
    assert tree(folder) == before
    file = tmp_path / "file"
    file.write_text("mine")
    for resume in (False, True):
        with pytest.raises(OutputError, match=r"not empty|not a folder"):
            make(file, resume=resume)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not a generated set"):
        make(tmp_path / "notes", resume=True)
    assert tree(tmp_path / "notes") == {"todo.txt": b"mine"} and file.read_text() == "mine"
    with pytest.raises(OutputError, match="cannot be written: Not a directory"):
        make(file / "below")


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path, whole: dict[str, bytes]) -> None:
    for name, resume in (("a", False), ("b", True)):
        (tmp_path / name).mkdir()
        make(tmp_path / name, resume=resume)
        assert tree(tmp_path / name) == whole
    make(tmp_path / "c" / "d", resume=True)
    assert tree(tmp_path / "c" / "d") == whole


def without(*names: str) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        for name in names:
            (out / name).unlink()

    return damage


def rewritten(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        (out / name).write_bytes(change((out / name).read_bytes()))

    return damage


def flipped(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


def before_the_start(out: Path) -> None:
    for path in sorted(out.rglob("*"), reverse=True):
        if path.is_file():
            path.unlink()


def before_the_header(out: Path) -> None:
    before_the_start(out)
    (out / "masks").rmdir()
    (out / ".set.json.tmp").write_bytes(b"{")


DAMAGE: dict[str, tuple[Callable[[Path], Any], int]] = {
    "nothing": (lambda out: None, 0),
    "a picture is missing": (without("images/000001.png"), 1),
    "a mask is missing": (without("masks/000004.png"), 1),
    "a picture is damaged": (rewritten("images/000002.png", flipped), 1),
    "a mask is cut short": (rewritten("masks/000000.png", lambda data: data[:-5]), 1),
    "the last line is cut short": (rewritten("manifest.jsonl", lambda data: data[:-30]), 1),
    "the last line has no end": (rewritten("manifest.jsonl", lambda data: data[:-1]), 1),
    "a line in the middle is garbage": (rewritten("manifest.jsonl", lambda data: data.replace(b'"', b"'", 9)), 1),
    "lines in another order": (rewritten("manifest.jsonl", lambda d: b"".join(d.splitlines(True)[::-1])), 0),
    "lines twice": (rewritten("manifest.jsonl", lambda data: data * 2), 0),
    "no manifest": (without("manifest.jsonl"), 5),
    "no contact sheet": (without("contact_sheet.png"), 0),
    "a damaged contact sheet": (rewritten("contact_sheet.png", flipped), 0),
    "names of a crash": (lambda out: [(out / n).write_bytes(b"half") for n in (
        "images/.000001.png.tmp", "masks/.000004.png.tmp", ".manifest.jsonl.tmp", ".contact_sheet.png.tmp")], 0),
    "a pair that is not recorded": (rewritten("manifest.jsonl", lambda d: b"".join(d.splitlines(True)[:-1])), 1),
    "before the first pair": (without("manifest.jsonl", "contact_sheet.png"), 5),
    "before set.json was written": (before_the_start, 5),
    "while set.json was written": (before_the_header, 5),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "redone"), DAMAGE.values(), ids=DAMAGE)
def test_resume_repairs(damage: Callable[[Path], Any], redone: int, folder: Path, whole: dict[str, bytes]) -> None:
    damage(folder)
    assert make(folder, resume=True).written == redone
    assert tree(folder) == whole
    assert verify_set(folder).problems == ()


def changed(path: str, value: Any) -> dict[str, Any]:
    header = deepcopy(HEADER)
    place: Any = header
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in way:
        place = place[part]
    place[last] = value
    return header


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("bundle/sha256", "1" * 64, r"another bundle\.sha256"),
        ("bundle/name", "other", r"another bundle\.name"),
        ("engine/threads", "2", r"another engine\.threads\n.*there: \"1\"; asked for: \"2\""),
        ("engine/device", "cpu", r"another engine\.device"),
        ("request/seed", 4, r"another request\.seed"),
        ("request/groups", [], r"another request\.groups"),
        ("request/groups/0/steps", 7, r"another request\.groups\[0\]\.steps"),
        ("groups/0/sampling/batch", 4, r"another groups\[0\]\.sampling\.batch"),
        ("pairs", 6, "another pairs"),
        ("provenance/Data licence", "CC-BY-4.0", r"another provenance\.Data licence"),
    ],
)
def test_a_set_of_another_making_is_refused_by_name(path: str, value: Any, named: str, folder: Path) -> None:
    before = tree(folder)
    with pytest.raises(OutputError, match=named):
        make(folder, resume=True, header=changed(path, value))
    assert tree(folder) == before


def test_the_same_header_in_other_types_is_the_same(folder: Path, whole: dict[str, bytes]) -> None:
    make(folder, resume=True, header=json.loads(json.dumps(HEADER)))
    assert tree(folder) == whole


def test_two_processes_cannot_write_into_one_folder(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """Locks belong to open files, so two sets in one process stand for two processes."""
    pytest.importorskip("fcntl")
    with PairSet(tmp_path / "set", HEADER) as first:
        first.add(pair(0))
        with pytest.raises(OutputError, match="being written by another process"):
            PairSet(tmp_path / "set", HEADER, resume=True)
        for index in range(1, PAIRS):
            first.add(pair(index))
    assert tree(tmp_path / "set") == whole
    make(tmp_path / "set", resume=True)  # released


def test_after_an_error_what_was_handed_in_is_whole(tmp_path: Path, whole: dict[str, bytes]) -> None:
    def fail() -> None:
        with PairSet(tmp_path / "set", HEADER) as pairs:
            for index in (0, 1, 2):
                pairs.add(pair(index))
            raise NumericsError("a graph gave no number")

    with pytest.raises(NumericsError):
        fail()
    found = verify_set(tmp_path / "set")
    assert found.whole == 3
    assert found.problems == ("2 of 5 pairs are not there yet, first 3", "contact_sheet.png is missing")
    make(tmp_path / "set", resume=True)
    assert tree(tmp_path / "set") == whole


@pytest.fixture
def slow_writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Encoding waits until the event is set."""
    import msdm_engine.output.pair_set

    gate, encode = threading.Event(), msdm_engine.output.pair_set.png_bytes

    def wait(*arguments: Any, **named: Any) -> bytes:
        gate.wait()
        return encode(*arguments, **named)

    monkeypatch.setattr(msdm_engine.output.pair_set, "png_bytes", wait)
    yield gate
    gate.set()


def test_a_slow_disk_holds_the_sampler_back(tmp_path: Path, slow_writer: threading.Event) -> None:
    """With two workers, four pairs wait; the fifth is handed in only when one of them is written."""
    reached: list[int] = []

    def fill() -> None:
        with PairSet(tmp_path / "set", HEADER, workers=2) as pairs:
            for index in range(PAIRS):
                pairs.add(pair(index))
                reached.append(index)

    thread = threading.Thread(target=fill)
    thread.start()
    while len(reached) < 4:
        assert thread.is_alive()
    thread.join(0.05)
    assert reached == [0, 1, 2, 3]
    slow_writer.set()
    thread.join()
    assert reached == [0, 1, 2, 3, 4] and verify_set(tmp_path / "set").problems == ()

"""The formats of a set: what is in them, what a resume keeps, what is refused, and who else can read them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msdm_engine.convert.job import convert_set
from msdm_engine.errors import InputError, OutputError, RequestError
from msdm_engine.gallery import write_gallery
from msdm_engine.output.contact_sheet import ContactSheet
from msdm_engine.output.merge import merge_shards
from msdm_engine.output.pair_set import PairSet
from msdm_engine.output.png import png_text
from msdm_engine.output.records import read_header
from msdm_engine.output.sink import FOLDER, FORMATS, WEBDATASET, ZARR, OutputChoice, sha256, sink_of
from msdm_engine.output.verify import verify_set
from msdm_engine.pairs import Pair, PairRequest

PAIRS, SIZE = 5, (24, 32)
CHOICES = {FOLDER: OutputChoice(), WEBDATASET: OutputChoice(WEBDATASET, tar_pairs=2), ZARR: OutputChoice(ZARR)}
CHOICES["zarr by 2"] = OutputChoice(ZARR, chunk_pairs=2)


@pytest.fixture(params=CHOICES)
def choice(request: pytest.FixtureRequest) -> OutputChoice:
    if "zarr" in request.param:
        pytest.importorskip("zarr")
    return CHOICES[request.param]


def header(choice: OutputChoice) -> dict[str, Any]:
    return {
        "pairs": PAIRS,
        "bundle": {"name": "drawn", "sha256": "0" * 64},
        "data": {"name": "drawn", "licence": "CC0-1.0", "source": "a test"},
        "output": choice.header({SIZE}),
        "provenance": {"Comment": "synthetic", "Data licence": "CC0-1.0"},
    }


def pair(index: int) -> Pair:
    """A picture of noise, and a mask with index + 1 nuclei."""
    instances = np.zeros(SIZE, np.uint16)
    for label in range(index + 1):
        instances[2 * label : 2 * label + 2, 4:20] = label + 1
    image = np.random.default_rng(index).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return Pair(PairRequest(index, 3, *SIZE, instances), image, instances)


def make(folder: Path, choice: OutputChoice, order: Any = range(PAIRS), *, resume: bool = False) -> PairSet:
    with PairSet(folder, header(choice), resume=resume, workers=2) as pairs:
        for index in order:
            if index not in pairs.done:
                pairs.add(pair(index))
    return pairs


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_handed_in_is_read_back_in_any_order(choice: OutputChoice, tmp_path: Path) -> None:
    assert make(tmp_path / "set", choice).written == PAIRS
    assert verify_set(tmp_path / "set").problems == ()
    sink = sink_of(tmp_path / "set", read_header(tmp_path / "set"))
    for record in map(json.loads, (tmp_path / "set" / "manifest.jsonl").read_text().splitlines()):
        (found,) = sink.read([record]) if sink.bucket_pairs == 1 or choice.format == ZARR else [None]
        if found is not None:
            image, instances = sink.pixels(found)  # type: ignore[arg-type]
            made = pair(record["index"])
            assert np.array_equal(image, made.image) and np.array_equal(instances, made.instances)
            assert (image.dtype.name, instances.dtype.name) == ("uint8", "uint16")
    make(tmp_path / "shuffled", choice, [3, 0, 4, 2, 1])
    assert tree(tmp_path / "shuffled") == tree(tmp_path / "set")


def test_a_sheet_that_ends_within_a_bucket(
    choice: OutputChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msdm_engine.output.pair_set.ContactSheet", lambda: ContactSheet(limit=3, thumbnail_px=16))
    make(tmp_path / "set", choice)
    assert verify_set(tmp_path / "set").problems == ()


@pytest.mark.parametrize("stop", range(PAIRS))
def test_an_error_midway_and_a_resume(stop: int, choice: OutputChoice, tmp_path: Path) -> None:
    make(tmp_path / "whole", choice)

    def fail() -> None:
        with PairSet(tmp_path / "set", header(choice), workers=1) as pairs:
            for index in range(stop):
                pairs.add(pair(index))
            raise OSError("elsewhere")

    with pytest.raises(OSError, match="elsewhere"):
        fail()
    bucket = {WEBDATASET: choice.tar_pairs, ZARR: choice.chunk_pairs}.get(choice.format, 1)
    kept = stop // bucket * bucket
    assert verify_set(tmp_path / "set").whole == kept
    assert make(tmp_path / "set", choice, resume=True).written == PAIRS - kept
    assert tree(tmp_path / "set") == tree(tmp_path / "whole")


DAMAGE: dict[str, list[tuple[str, Callable[[Path], Any], str]]] = {
    FOLDER: [
        ("images/000001.png", lambda path: path.unlink(), "images/000001.png is missing"),
        ("images/000001.png", lambda path: path.write_bytes(b"x"), "images/000001.png is not as it was written"),
    ],
    WEBDATASET: [
        ("pairs-000001.tar", lambda path: path.unlink(), "pairs-000001.tar is missing"),
        ("pairs-000001.tar", lambda path: path.write_bytes(b"x" * 2000), "pairs-000001.tar cannot be read"),
        ("pairs-000001.tar", lambda path: path.write_bytes(path.read_bytes()[:-1]), "is not as it was written"),
        # A byte of the first member's owner, which no picture's hash covers.
        (
            "pairs-000001.tar",
            lambda path: path.write_bytes(path.read_bytes()[:110] + b"7" + path.read_bytes()[111:]),
            "pairs-000001.tar ",
        ),
        ("pairs-000009.tar", lambda path: path.write_bytes(b""), "pairs-000009.tar is not listed"),
    ],
    ZARR: [
        ("pairs.zarr/images/c/1/0/0/0", lambda path: path.unlink(), " of pairs.zarr is not as it was written"),
        ("pairs.zarr/images/c/1/0/0/0", lambda path: path.write_bytes(b"x"), " of pairs.zarr cannot be read"),
    ],
}


def test_damage_is_found_and_a_resume_mends_it(choice: OutputChoice, tmp_path: Path) -> None:
    make(tmp_path / "whole", choice)
    for number, (name, damage, problem) in enumerate(DAMAGE[choice.format]):
        folder = tmp_path / str(number)
        make(folder, choice)
        damage(folder / name)
        found = verify_set(folder)
        assert problem in found.problems[0], name
        make(folder, choice, resume=True)
        if "not listed" not in problem:
            assert tree(folder) == tree(tmp_path / "whole"), name


def test_a_member_that_claims_a_size_is_not_read(tmp_path: Path) -> None:
    """A sparse member of four gigabytes of zeros takes half a kilobyte of a tar."""
    make(tmp_path / "set", CHOICES[WEBDATASET])
    header = tarfile.TarInfo("000002.image.png")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 0
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"%011o\0" % 2**32  # the real size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    (tmp_path / "set/pairs-000001.tar").write_bytes(bytes(block) + bytes(1024))
    assert verify_set(tmp_path / "set").problems == ("pairs-000001.tar is not as it was written",)


def test_a_store_that_is_gone_or_another_is_told(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    make(tmp_path / "set", CHOICES[ZARR])
    (tmp_path / "set/pairs.zarr").rename(tmp_path / "away")
    assert "pairs.zarr is missing" in verify_set(tmp_path / "set").problems[0]
    path = tmp_path / "set/set.json"
    path.write_text(path.read_text().replace('"width_px": 32', '"width_px": 16'))
    (tmp_path / "away").rename(tmp_path / "set/pairs.zarr")
    assert "set.json says otherwise" in verify_set(tmp_path / "set").problems[0]


def test_a_half_written_chunk_is_cleared_away(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    make(tmp_path / "set", CHOICES[ZARR])
    whole = tree(tmp_path / "set")
    (tmp_path / "set/pairs.zarr/images/c/1/0/0/0.0123.partial").write_bytes(b"half")
    make(tmp_path / "set", CHOICES[ZARR], resume=True)
    assert tree(tmp_path / "set") == whole


def test_webdataset_reads_the_tars(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    make(tmp_path / "set", CHOICES[WEBDATASET])
    tars = sorted(map(str, (tmp_path / "set").glob("*.tar")))
    assert [Path(tar).name for tar in tars] == ["pairs-000000.tar", "pairs-000001.tar", "pairs-000002.tar"]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{index:06d}" for index in range(PAIRS)]
    sink = sink_of(tmp_path / "set", read_header(tmp_path / "set"))
    for index, sample in enumerate(samples):
        about = json.loads(sample["json"])
        assert about["index"] == index and about["provenance"]["Data licence"] == "CC0-1.0"
        assert png_text(sample["image.png"])["Pair"] == str(index)
        made = pair(index)
        stored = type("Stored", (), {"image": sample["image.png"], "mask": sample["mask.png"], "index": index})
        image, instances = sink.pixels(stored)  # type: ignore[arg-type]
        assert np.array_equal(image, made.image) and np.array_equal(instances, made.instances)
    with tarfile.open(tars[0]) as tar:
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in tar} == {(0, 0, 0, "")}


def test_zarr_reads_the_store(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    make(tmp_path / "set", CHOICES["zarr by 2"])
    group = zarr.open_group(tmp_path / "set/pairs.zarr", mode="r")
    assert group["images"].shape == (PAIRS, *SIZE, 3) and group["masks"].dtype == np.uint16
    assert group["images"].chunks == (2, *SIZE, 3) and group.metadata.zarr_format == 3
    assert np.array_equal(group["masks"][4], pair(4).instances)
    assert np.array_equal(group["images"][3], pair(3).image)
    assert group.attrs["provenance"]["Comment"] == "synthetic"


def test_from_each_format_to_each_other_to_the_byte(choice: OutputChoice, tmp_path: Path) -> None:
    """A set that is carried into a format is the set that would have been made in it."""
    make(tmp_path / "from", choice)
    for number, other in enumerate(CHOICES.values()):
        if other.format == ZARR:
            pytest.importorskip("zarr")
        make(tmp_path / f"made {number}", other)
        merge_shards([tmp_path / "from"], tmp_path / f"carried {number}", output=other)
        assert tree(tmp_path / f"carried {number}") == tree(tmp_path / f"made {number}")


def test_other_settings_of_one_encoder_are_another_format(tmp_path: Path) -> None:
    """A set whose files were encoded otherwise: the same pixels, and a merge writes them as its header will say."""
    make(tmp_path / "set", CHOICES[FOLDER])
    make(tmp_path / "old", CHOICES[FOLDER])
    path, records = tmp_path / "old/images/000000.png", tmp_path / "old/manifest.jsonl"
    before, image = path.read_bytes(), cv2.imread(str(path))
    assert image is not None
    path.write_bytes(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())
    records.write_text(records.read_text().replace(sha256(before), sha256(path.read_bytes())))
    header = json.loads((tmp_path / "old/set.json").read_text())
    header["output"]["png"]["level"] = 9
    (tmp_path / "old/set.json").write_text(json.dumps(header, indent=1) + "\n")
    merge_shards([tmp_path / "old"], tmp_path / "same")
    assert tree(tmp_path / "same") == tree(tmp_path / "old")
    merge_shards([tmp_path / "old"], tmp_path / "new", output=OutputChoice())
    assert tree(tmp_path / "new") == tree(tmp_path / "set")


def test_a_resume_in_another_format_is_refused(choice: OutputChoice, tmp_path: Path) -> None:
    make(tmp_path / "set", choice)
    other = OutputChoice(WEBDATASET, tar_pairs=3)
    with pytest.raises(OutputError, match=r"another output\."):
        make(tmp_path / "set", other, resume=True)
    recorded = header(choice)
    changed = {"codec": "zstd 0"} if choice.format == ZARR else {"png": {"level": 9}}
    recorded["output"] |= changed
    with pytest.raises(OutputError, match=r"another output\.(codec|png\.)"):
        PairSet(tmp_path / "set", recorded, resume=True)


def test_gallery_and_convert_refuse_by_name_with_the_way_out(tmp_path: Path) -> None:
    make(tmp_path / "set", CHOICES[WEBDATASET])
    for attempt in (
        lambda: convert_set(tmp_path / "set", "coco", tmp_path / "out"),
        lambda: write_gallery(tmp_path / "set"),
    ):
        with pytest.raises(InputError, match=r"of the format webdataset\n.*\n.*merge .* --format folder"):
            attempt()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "tar"}, "unknown format 'tar'"),
        ({"format": "zar"}, "did you mean 'zarr'"),
        ({"tar_pairs": 0}, "tar_pairs is 0"),
        ({"chunk_pairs": 5000}, "chunk_pairs is 5000"),
    ],
)
def test_what_a_choice_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        OutputChoice(**values)


def test_several_sizes_are_no_zarr() -> None:
    with pytest.raises(RequestError, match=r"2 sizes \(16 x 16, 24 x 32 px\) cannot be written as zarr"):
        OutputChoice(ZARR).header({SIZE, (16, 16)})


def test_zarr_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("msdm_engine.output.zarr_sink.version", absent)
    with pytest.raises(RequestError, match=r"the format zarr needs zarr\n.*msdm\[zarr\]"):
        OutputChoice(ZARR).header({SIZE})


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"format": "lance"}, "unknown format 'lance'"),
        ("folder", "unknown format 'None'"),
        ({"format": "webdataset"}, "names 'None' as tar_pairs"),
        ({"format": "webdataset", "tar_pairs": True}, "names 'True' as tar_pairs"),
    ],
)
def test_a_header_that_is_not_legal(output: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=message):
        sink_of(tmp_path, {"pairs": 1, "output": output})


def test_a_zarr_header_that_is_not_legal(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    with pytest.raises(OutputError, match="names '-1' as height_px"):
        sink_of(tmp_path, {"pairs": 1, "output": {"format": "zarr", "chunk_pairs": 1, "height_px": -1, "width_px": 1}})


def test_formats_are_those_that_can_be_chosen() -> None:
    assert set(FORMATS) == {choice.format for choice in CHOICES.values()}

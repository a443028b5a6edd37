"""Shards: disjoint, whole batches; merged they are the set of one run, to the byte; what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from msdm_engine import Bundle
from msdm_engine.cli import main
from msdm_engine.errors import InputError, MsdmError, RequestError
from msdm_engine.output.job import generate
from msdm_engine.output.merge import merge_shards
from msdm_engine.output.shard import Shard
from msdm_engine.output.sink import OutputChoice
from msdm_engine.output.verify import verify_set
from msdm_engine.requests.compose import compose
from msdm_engine.requests.request import GroupRequest, Invent, Layout, SetRequest

GROUP = GroupRequest(Layout("round", {"crowding": 0.2}), count=5, steps=2, preset="lilac-round")
#: Batches of two: pairs 0 1, 2 3, 4 of the first group and 5 6, 7 of the second.
REQUEST = SetRequest((GROUP, GroupRequest(Invent(), count=3, steps=2, preset="lilac-round")), seed=4)


def make(out: Path, bundle: Path, shard: Shard | None = None, **options: Any) -> Path:
    generate(options.pop("request", REQUEST), out, bundle=bundle, threads=1, batch=2, shard=shard, **options)
    return out


def shards(folder: Path, bundle: Path, of: int, **options: Any) -> list[Path]:
    return [make(folder / f"shard{i}", bundle, Shard(i, of), **options) for i in range(of)]


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (1, [range(8)]),
        (2, [range(4), range(4, 8)]),
        (3, [range(2), range(2, 5), range(5, 8)]),
        (5, [range(2), range(2, 4), range(4, 5), range(5, 7), range(7, 8)]),
    ],
)
def test_a_shard_holds_whole_batches(of: int, expected: list[range], bundle_folder: Path) -> None:
    groups = compose(Bundle.open(bundle_folder).manifest, REQUEST, 2)
    assert [Shard(i, of).range_of(groups) for i in range(of)] == expected


@pytest.mark.parametrize("of", [1, 3, 5])
def test_merged_shards_are_the_set_of_one_run(of: int, bundle_folder: Path, backends: Any, tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", bundle_folder)
    parts = shards(tmp_path, bundle_folder, of)
    assert sum(verify_set(part).whole for part in parts) == 8
    assert all(verify_set(part).problems == () for part in parts)
    assert merge_shards(parts[::-1], tmp_path / "merged") == 8
    assert tree(tmp_path / "merged") == tree(whole)


@pytest.mark.parametrize("output", [OutputChoice("webdataset", tar_pairs=3), OutputChoice("zarr", chunk_pairs=3)])
def test_tars_and_chunks_that_a_shard_cuts_are_whole_after_the_merge(
    output: OutputChoice, bundle_folder: Path, backends: Any, tmp_path: Path
) -> None:
    if output.format == "zarr":
        pytest.importorskip("zarr")
    whole = make(tmp_path / "whole", bundle_folder, output=output)
    parts = shards(tmp_path, bundle_folder, 3, output=output)
    assert [verify_set(part).whole for part in parts] == [2, 3, 3]
    merge_shards(parts, tmp_path / "merged")
    assert tree(tmp_path / "merged") == tree(whole)


def test_an_interrupted_merge_is_resumed(
    bundle_folder: Path, backends: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(tmp_path / "whole", bundle_folder)
    parts = shards(tmp_path, bundle_folder, 2)
    merge_shards(parts, tmp_path / "merged")
    (tmp_path / "merged/images/000003.png").unlink()
    assert merge_shards(parts, tmp_path / "merged", resume=True) == 1
    assert tree(tmp_path / "merged") == tree(whole)


def change_header(folder: Path, key: str, value: Any) -> None:
    path = folder / "set.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def test_what_a_merge_refuses(bundle_folder: Path, backends: Any, tmp_path: Path) -> None:
    parts = shards(tmp_path, bundle_folder, 3)
    out = tmp_path / "merged"
    other = make(tmp_path / "other", bundle_folder, Shard(1, 3), request=replace(REQUEST, seed=5))
    half = make(tmp_path / "half", bundle_folder, Shard(0, 2))
    damaged = shutil.copytree(parts[1], tmp_path / "damaged")
    (damaged / "masks/000003.png").write_bytes(b"x")
    illegal = shutil.copytree(parts[1], tmp_path / "illegal")
    change_header(illegal, "shard", {"first": 7, "pairs": 9})
    for named, message in (
        ([], "no shards"),
        ([tmp_path / "nothing"], "is not a generated set"),
        ([parts[0], parts[2]], "pairs 2 to 4 are in none of the shards"),
        ([parts[1], parts[2]], "pairs 0 to 1 are in none of the shards"),
        (parts[:2], "pairs 5 to 7 are in none of the shards"),
        ([*parts, parts[1]], "both hold pair 2"),
        ([half, *parts[1:]], "both hold pair 2"),
        ([parts[0], other, parts[2]], r"shards of two sets: another request\.seed"),
        ([parts[0], damaged, parts[2]], r"shard .*damaged is not whole: masks/000003.png is not as it was written"),
        ([parts[0], illegal, parts[2]], "does not say which pairs of the set its shard holds"),
    ):
        with pytest.raises(MsdmError, match=message):
            merge_shards(named, out)
        assert not out.exists()


def test_a_shard_is_refused_where_a_whole_set_is_needed(bundle_folder: Path, backends: Any, tmp_path: Path) -> None:
    from msdm_engine.convert.job import convert_set

    part = make(tmp_path / "part", bundle_folder, Shard(0, 2))
    with pytest.raises(InputError, match=r"is one shard of a set\n.*\n.*msdm-engine merge SHARD"):
        convert_set(part, "coco", tmp_path / "coco")


@pytest.mark.parametrize("text", ["", "1", "a/b", "-1/2", "2/2", "0/0", "1/2/3", "٣/٤٤"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(RequestError, match="shard"):
        Shard.parse(text)


def test_more_shards_than_batches(bundle_folder: Path, backends: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"6 shards of a set of 5 batch\(es\)\n.*\n.*at most 5 shards"):
        make(tmp_path / "out", bundle_folder, Shard(5, 6))
    assert not (tmp_path / "out").exists()


def test_the_commands(bundle_folder: Path, backends: Any, tmp_path: Path) -> None:
    sample = ["sample", "--layout", "round", "--count", "4", "--bundle", str(bundle_folder), "--quiet"]
    for name, more in (("whole", []), ("a", ["--shard", "0/2"]), ("b", ["--shard", "1/2"])):
        done = CliRunner().invoke(main, [*sample, "--out", str(tmp_path / name), *more])
        assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, [*sample, "--validate", "--shard", "1/2", "--batch", "1"])
    assert "shard 1/2 of this set: pairs 2 to 3" in done.stdout
    merge = ["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--out"]
    done = CliRunner().invoke(main, [*merge, str(tmp_path / "merged")])
    assert done.exit_code == 0 and "4 pairs of 2 shard(s)" in done.stdout
    assert tree(tmp_path / "merged") == tree(tmp_path / "whole")
    done = CliRunner().invoke(main, [*merge, str(tmp_path / "tars"), "--format", "webdataset", "--quiet"])
    assert done.exit_code == 0 and done.output == "" and (tmp_path / "tars/pairs-000000.tar").is_file()

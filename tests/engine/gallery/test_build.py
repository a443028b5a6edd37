from __future__ import annotations

import gc
import json
import re
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from msdm_engine.cli import main
from msdm_engine.errors import InputError, OutputError, RequestError
from msdm_engine.gallery import build, write_gallery
from msdm_engine.gallery.manifest import Record, records
from msdm_engine.gallery.measure import Measured, measure


def block(page: Path, name: str) -> Any:
    found = re.search(rf'id="{name}">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_page_lies_in_the_set(write_set: Any) -> None:
    folder = write_set(([4], {}), ([5, 5], {}))
    page = write_gallery(folder)
    assert page == folder / "gallery.html"
    about = block(page, "set-data")
    assert (about["name"], about["base"], about["total"]) == ("set", "", 2)
    assert about["header"]["bundle"]["sha256"] == "0123456789abcdef" * 4
    assert "not for diagnosis" in about["notice"]
    assert block(page, "pair-data")["image"] == ["images/000000.png", "images/000001.png"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "gallery.html", "images", "manifest.jsonl", "masks", "set.json"
    ]  # fmt: skip


def test_the_same_set_gives_the_same_page(write_set: Any) -> None:
    folder = write_set(([4], {}))
    assert write_gallery(folder).read_bytes() == write_gallery(folder).read_bytes()


def test_a_page_elsewhere_refers_to_the_set(write_set: Any, tmp_path: Path) -> None:
    folder = write_set(([4], {})).rename(tmp_path / "a set, 50 %#?")
    (tmp_path / "pages").mkdir()
    page = write_gallery(folder, tmp_path / "pages" / "view.html")
    assert block(page, "set-data")["base"] == "../a%20set%2C%2050%20%25%23%3F/"


def test_the_first_pairs(write_set: Any) -> None:
    folder = write_set(([4], {}), ([5], {}), ([6], {}))
    (folder / "masks/000002.png").unlink()  # beyond what is shown, so not missed
    page = write_gallery(folder, first=2)
    assert block(page, "pair-data")["index"] == [0, 1]
    assert block(page, "set-data")["total"] == 3
    with pytest.raises(RequestError, match="first 0 pairs"):
        write_gallery(folder, first=0)
    with pytest.raises(InputError, match=r"000002\.png is missing"):
        write_gallery(folder)


def test_an_error_leaves_the_last_page_as_it_was(write_set: Any) -> None:
    folder = write_set(([4], {}), ([5], {}))
    write_gallery(folder)
    before = (folder / "gallery.html").read_bytes()
    (folder / "images/000001.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"000001\.png"):
        write_gallery(folder)
    assert (folder / "gallery.html").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_an_empty_set(write_set: Any) -> None:
    with pytest.raises(InputError, match="holds no pair"):
        write_gallery(write_set())


def test_a_folder_that_is_gone(write_set: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"view\.html cannot be written"):
        write_gallery(write_set(([4], {})), tmp_path / "no such folder" / "view.html")


def test_a_page_that_is_too_large_says_how_many_pairs_fit(write_set: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_set(([4], {}), ([5], {}), ([6], {}))
    size = write_gallery(folder, first=2).stat().st_size
    monkeypatch.setattr(build, "MAX_PAGE_BYTES", size)
    write_gallery(folder, first=2)
    with pytest.raises(InputError, match="the page of the first 3 pairs takes") as caught:
        write_gallery(folder)
    assert "--first" in (caught.value.hint or "")
    assert (folder / "gallery.html").stat().st_size == size, "the last page is left as it was"


def test_one_pair_is_in_memory_at_a_time(write_set: Any) -> None:
    folder = write_set(([4], {}))
    (record,) = records(folder)
    measured = measure(folder, record, 32)
    alive: weakref.WeakSet[Measured] = weakref.WeakSet()
    most = 0

    def pairs() -> Iterator[tuple[Record, Measured]]:
        nonlocal most
        for index in range(3 * build.BLOCK):
            pair = replace(measured)
            alive.add(pair)
            most = max(most, len(alive))
            yield replace(record, index=index), pair
            del pair

    header = {"bundle": {"name": "b", "sha256": "0"}, "data": {"licence": "CC0-1.0"}}
    gc.collect()
    page = build.page_of(pairs(), header, name="n", base="", total=3 * build.BLOCK)
    # The one just made, and the one before it that the loop still holds.
    assert most <= 2
    assert page.count(b'class="detail"') == 3


def test_the_command(write_set: Any, tmp_path: Path) -> None:
    folder = write_set(([4], {}))
    done = CliRunner().invoke(main, ["gallery", str(folder), "--quiet"])
    assert (done.exit_code, done.output) == (0, "")
    done = CliRunner().invoke(main, ["gallery", str(folder), "--html", str(tmp_path / "view.html"), "--first", "1"])
    assert done.exit_code == 0
    assert "view.html" in done.output
    assert (tmp_path / "view.html").exists()
    failed = CliRunner().invoke(main, ["gallery", str(tmp_path)])
    assert failed.exit_code == InputError.exit_code
    assert "is not a generated set" in failed.output

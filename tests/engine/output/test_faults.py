"""Full disks and crashes at every single file operation of a set: whole pairs only, and a resume completes it."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_engine.errors import OutputError
from msdm_engine.output.contact_sheet import ContactSheet
from msdm_engine.output.pair_set import PairSet
from msdm_engine.output.records import read_records, verify_set, whole_pairs
from msdm_engine.pairs import Pair, PairRequest

PAIRS = 3
HEADER: dict[str, Any] = {"pairs": PAIRS, "bundle": {"name": "drawn"}, "provenance": {"Comment": "synthetic"}}


def pair(index: int) -> Pair:
    instances = np.full((16, 16), index + 1, np.uint16)
    image = np.full((16, 16, 3), 50 * index, np.uint8)
    return Pair(PairRequest(index, 3, 16, 16, instances), image, instances)


def make(folder: Path, *, resume: bool = False) -> None:
    with PairSet(folder, HEADER, resume=resume) as pairs:
        for index in range(PAIRS):
            if index not in pairs.done:
                pairs.add(pair(index))


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def small_sheet() -> Iterator[None]:
    """Sets are made some hundred times here, and most of a small set's time is its sheet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("msdm_engine.output.pair_set.ContactSheet", lambda: ContactSheet(limit=2, thumbnail_px=16))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "set"
    make(folder)
    return tree(folder)


class Faults:
    """Counts writes, flushes and renames below a folder, over all threads, and lets one of them fail.

    Args:
        at: the operation that fails, from 0; None: none does.
        fail: what happens then, given a function that writes half of what was to be written.
        lasting: every later one fails too, as on a full disk.
    """

    def __init__(self, at: int | None, fail: Callable[[Callable[[], Any]], Any], *, lasting: bool = False) -> None:
        self.at, self.fail, self.lasting = at, fail, lasting
        self.count = 0
        self._lock = threading.Lock()

    def operation(self, half: Callable[[], Any] = lambda: None) -> None:
        with self._lock:
            now, self.count = self.count, self.count + 1
        if self.at is not None and (now == self.at or (self.lasting and now > self.at)):
            self.fail(half)

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original_open, fsync, replace = Path.open, os.fsync, os.replace

        def faulty_open(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            file = original_open(path, mode, *arguments, **named)
            if "w" not in mode and "a" not in mode:
                return file
            return _Writer(file, self)

        def faulty_fsync(descriptor: int) -> None:
            self.operation()
            fsync(descriptor)

        def faulty_replace(source: Any, target: Any) -> None:
            self.operation()
            replace(source, target)

        monkeypatch.setattr(Path, "open", faulty_open)
        monkeypatch.setattr(os, "fsync", faulty_fsync)
        monkeypatch.setattr(os, "replace", faulty_replace)


class _Writer:
    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Writer:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def write(self, data: bytes) -> int:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._faults.operation(half)
        written: int = self._file.write(data)
        return written


def no_space(half: Callable[[], Any]) -> None:
    half()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only(half: Callable[[], Any]) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def number_of_operations(tmp_path: Path) -> int:
    faults = Faults(None, no_space)
    with pytest.MonkeyPatch.context() as patch:
        faults.patch(patch)
        make(tmp_path / "counted")
    return faults.count


def test_every_file_is_written_flushed_and_renamed(tmp_path: Path) -> None:
    # set.json, two files a pair, the manifest at the start and sorted at the end, and the sheet take three
    # operations each; a line of the manifest takes two.
    assert number_of_operations(tmp_path) == 3 * (1 + 2 * PAIRS + 2 + 1) + 2 * PAIRS


def check_whole_pairs_only(folder: Path) -> None:
    """Every listed pair is whole; nothing is half written except under a name that begins with a dot."""
    if not (folder / "set.json").exists():
        assert not list(folder.glob("*s/*.png"))
        return
    listed = [record["index"] for record in read_records(folder) if record]
    assert set(whole_pairs(folder)) == set(listed)


def check_names(folder: Path, whole: dict[str, bytes]) -> None:
    """What stands under a final name has its final bytes; the manifest grows."""
    for name, data in tree(folder).items():
        if not Path(name).name.startswith(".") and name != "manifest.jsonl":
            assert data == whole[name], name


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("fail", [no_space, read_only])
def test_a_full_or_read_only_disk_at_every_operation(
    fail: Any, lasting: bool, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    for at in range(number_of_operations(tmp_path)):
        folder = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as patch:
            Faults(at, fail, lasting=lasting).patch(patch)
            with pytest.raises(OutputError, match=r"cannot be written: (No space left|Read-only file system)"):
                make(folder)
        check_whole_pairs_only(folder)
        check_names(folder, whole)
        assert not list(folder.rglob(".*")), "an error leaves no temporary file"
        manifest = folder / "manifest.jsonl"
        assert not manifest.exists() or manifest.read_bytes().endswith(b"\n") or not manifest.read_bytes()
        make(folder, resume=True)
        assert tree(folder) == whole
        assert verify_set(folder).problems == ()


def test_a_disk_that_fills_while_resuming(tmp_path: Path, whole: dict[str, bytes]) -> None:
    rewriting_the_manifest, the_rest = 3, 2 * 3 + 2 + 3 + 3  # two files, a line, the manifest in order, the sheet
    for at in range(rewriting_the_manifest + the_rest):
        folder = tmp_path / str(at)
        make(folder)
        (folder / "images/000001.png").unlink()
        with pytest.MonkeyPatch.context() as patch:
            Faults(at, no_space).patch(patch)
            with pytest.raises(OutputError, match="No space left"):
                make(folder, resume=True)
        check_names(folder, whole)
        if at >= rewriting_the_manifest:
            check_whole_pairs_only(folder)
        make(folder, resume=True)
        assert tree(folder) == whole


@pytest.fixture
def forked() -> Callable[[Callable[[], None]], int]:
    """Runs a function in a child process and returns its exit status."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")

    def run(function: Callable[[], None]) -> int:
        child = os.fork()
        if child == 0:
            try:
                function()
            finally:
                os._exit(0)  # no test of the parent goes on in the child
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_crash_at_every_operation(
    forked: Callable[[Callable[[], None]], int], tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """The process is gone between two system calls, or in the middle of a write: no cleaning up of any kind."""

    def crash(half: Callable[[], Any]) -> None:
        half()
        os._exit(9)

    for at in range(number_of_operations(tmp_path)):
        folder = tmp_path / str(at)

        def crashing(folder: Path = folder, at: int = at) -> None:
            Faults(at, crash).patch(pytest.MonkeyPatch())
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (the child ends)
            make(folder)

        assert forked(crashing) == 9
        check_whole_pairs_only(folder)
        check_names(folder, whole)
        make(folder, resume=True)
        assert tree(folder) == whole, at
        assert verify_set(folder).problems == ()

"""The command: what it writes, and that it writes all or nothing."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import msdm_engine.convert.format as format_module
from msdm_engine.cli import main
from msdm_engine.convert.job import convert_set
from msdm_engine.convert.registry import FORMATS
from msdm_engine.errors import OutputError, RequestError

#: class for every format: the two arrays have classes of their own and share this one
CLASS = "connective"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_written_by_the_command(one_size_set: Path, tmp_path: Path, name: str) -> None:
    before = {path: path.read_bytes() for path in one_size_set.rglob("*") if path.is_file()}
    done = run(one_size_set, "--to", name, "--class", CLASS, "--out", tmp_path / "deep" / "out")
    assert done.exit_code == 0, done.output
    assert f"7 pairs as {name}" in done.output
    assert "read with" in done.output
    assert any((tmp_path / "deep" / "out").iterdir())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert {path: path.read_bytes() for path in one_size_set.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_in_the_help_and_the_docs(name: str) -> None:
    assert name in run("--help").output
    docs = Path(__file__).resolve().parents[3] / "docs" / "formats.md"
    assert f"| `{name}` |" in docs.read_text()


@pytest.mark.parametrize("name", FORMATS)
def test_two_conversions_are_equal_byte_for_byte(one_size_set: Path, tmp_path: Path, name: str) -> None:
    found = []
    for out in (tmp_path / "a", tmp_path / "b"):
        convert_set(one_size_set, name, out, nucleus_class=CLASS)
        found.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert found[0] == found[1]


def test_quiet_says_nothing(one_size_set: Path, tmp_path: Path) -> None:
    done = run(one_size_set, "--to", "coco", "--out", tmp_path / "out", "--quiet")
    assert (done.exit_code, done.output) == (0, "")


def test_an_unknown_format_names_the_nearest(one_size_set: Path, tmp_path: Path) -> None:
    done = run(one_size_set, "--to", "qpath", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "unknown format 'qpath'" in done.output
    assert "did you mean 'qupath'?" in done.output


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "two\nlines"])
def test_a_class_that_is_no_name_is_refused(one_size_set: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match="is not legal"):
        convert_set(one_size_set, "coco", tmp_path / "out", nucleus_class=name)


def test_a_damaged_set_has_the_exit_code_of_input(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert run(tmp_path / "set", "--to", "coco", "--out", tmp_path / "out").exit_code == 4


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder", "dangling link"])
def test_nothing_is_overwritten(one_size_set: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "dangling link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
        if kind == "folder":
            (out / "mine").touch()
    done = run(one_size_set, "--to", "coco", "--out", out)
    assert done.exit_code == 5
    assert "exists" in done.output
    assert [path.name for path in tmp_path.rglob("*")] == ["out", *(["mine"] if kind == "folder" else [])]


def test_a_folder_that_appears_meanwhile_is_kept(
    one_size_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "mine").touch()
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(OutputError, match="cannot be written"):
        convert_set(one_size_set, "conic", tmp_path / "out", nucleus_class=CLASS)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "out"]


@pytest.mark.parametrize("inside", [".", "out", "images/out"])
def test_output_in_the_set_is_refused(one_size_set: Path, inside: str) -> None:
    with pytest.raises(OutputError, match="exists" if inside == "." else "lies in the set"):
        convert_set(one_size_set, "coco", one_size_set / inside)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_an_interruption_leaves_nothing_behind(
    one_size_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    each = format_module.Conversion.each

    def interrupted(conversion: format_module.Conversion) -> object:
        for pair in each(conversion):
            if pair.index == 3:
                raise error
            yield pair

    monkeypatch.setattr(format_module.Conversion, "each", interrupted)
    done = run(one_size_set, "--to", name, "--class", CLASS, "--out", tmp_path / "out")
    if isinstance(error, OSError):
        assert done.exit_code == 5
        assert "cannot be written: No space left on device" in done.output
    else:
        assert done.exit_code == 130
        assert "nothing was written" in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_cannot_be_written_is_an_error_of_output(one_size_set: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        convert_set(one_size_set, "coco", tmp_path / "file" / "out")


def test_the_folder_has_the_usual_permissions(one_size_set: Path, tmp_path: Path) -> None:
    convert_set(one_size_set, "coco", tmp_path / "out")
    (tmp_path / "plain").mkdir()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out", "plain")]
    assert modes[0] == modes[1]

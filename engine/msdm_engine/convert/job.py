"""A whole conversion: the set verified, the format written under a temporary name, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msdm_engine.convert.format import NUCLEUS, Conversion, Format
from msdm_engine.convert.registry import format_named
from msdm_engine.convert.source import open_set
from msdm_engine.errors import OutputError, RequestError, nearest

MAX_CLASS_CHARACTERS = 64


@dataclass(frozen=True)
class Converted:
    """What was written.

    Args:
        pairs: number of pairs.
        read_with: how to read it.
        note: what the user should know of it; may be empty.
    """

    pairs: int
    read_with: str


def convert_set(
    set_folder: Path, format_name: str, out: Path, *, nucleus_class: str | None = None, progress: bool = False
) -> Converted:
    """Writes a generated set in another format.

    The set is verified first, every file by its hash. The folder ``out`` appears when all of it is written, and not
    at all after an error or Ctrl-C. Files are not flushed one by one: after a power failure, convert again.

    Args:
        set_folder: what ``msdm-engine sample --out`` wrote.
        format_name: a key of :data:`msdm_engine.convert.registry.FORMATS`.
        out: folder to write; must not exist, and lies outside the set.
        nucleus_class: class of all nuclei; None: ``nucleus``; a format with classes of its own needs one of them.
        progress: show a progress bar.

    Raises:
        RequestError: an unknown format, a class that it does not have, or none where it needs one.
        InputError: no set, a damaged or incomplete one, or one that the format cannot hold (several sizes).
        OutputError: ``out`` exists, lies in the set, or cannot be written.
    """
    form = format_named(format_name)
    chosen = _class_of(form, format_name, nucleus_class)
    _check_out(set_folder, out)
    pairs, provenance = open_set(set_folder)
    with _appearing(out) as folder:
        form.write(Conversion(pairs, provenance, folder, chosen, progress=progress))
    return Converted(len(pairs), form.read_with)


def _class_of(form: Format, format_name: str, nucleus_class: str | None) -> str:
    if nucleus_class is None and form.classes:
        raise RequestError(
            f"{format_name} needs the class of each nucleus",
            note="a generated set does not know the classes of its nuclei",
            hint=f"name one for all of them: --class NAME, one of {', '.join(form.classes)}",
        )
    if nucleus_class is None:
        return NUCLEUS
    if form.classes and nucleus_class not in form.classes:
        raise RequestError(f"{format_name} has no class '{nucleus_class}'", note=nearest(nucleus_class, form.classes))
    if not (0 < len(nucleus_class) <= MAX_CLASS_CHARACTERS and nucleus_class.isprintable() and nucleus_class.strip()):
        raise RequestError(
            f"class {nucleus_class[: MAX_CLASS_CHARACTERS + 1]!r} is not legal",
            note=f"1 to {MAX_CLASS_CHARACTERS} printable characters",
        )
    return nucleus_class


def _check_out(set_folder: Path, out: Path) -> None:
    if os.path.lexists(out):
        raise OutputError(f"output {out} exists", hint="choose another --out, or move it away")
    if out.resolve().is_relative_to(set_folder.resolve()):
        raise OutputError(
            f"output {out} lies in the set",
            note="a set holds what its manifest lists, and nothing else",
            hint="choose an --out beside it",
        )


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """An empty folder beside ``out`` that is renamed to it on success, and removed with all it holds otherwise."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    made = False
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        made = True
        yield temporary
        os.rename(temporary, out)  # never onto a file or onto a folder that holds anything
        made = False
    except OSError as error:
        raise OutputError(
            f"output {out} cannot be written: {error.strerror or error}",
            hint="check the free space and the permissions",
        ) from error
    finally:
        if made:
            shutil.rmtree(temporary, ignore_errors=True)
